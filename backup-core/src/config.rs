//! The configuration model: one description, in TOML or JSON, of everything that can be configured by name, and the
//! [`Registry`] that makes the described things.
//!
//! A configuration is data. It names *kinds* (`kind = "files"`), and a [`Registry`] knows how each kind is made, so
//! that a program with sources, sinks, transforms or policies of its own is a registry and a `main`.
//!
//! ```
//! use backup_core::config::Config;
//!
//! let config = Config::from_toml(
//!     r#"
//!     [places.nas]
//!     kind = "local"
//!     path = "/srv/backup"
//!
//!     [keys.office]
//!     kind = "passphrase"
//!     secret = "file:/etc/backup/passphrase"
//!
//!     [repositories.main]
//!     place = "nas"
//!     keys = ["office"]
//!
//!     [sources.etc]
//!     kind = "files"
//!     paths = ["/etc"]
//!
//!     [jobs.configuration]
//!     source = "etc"
//!     repository = "main"
//!     tags = { tier = "system" }
//!     "#,
//!     "backup.toml",
//! )?;
//! assert_eq!(config.jobs["configuration"].source, "etc");
//!
//! let typo = Config::from_toml("[jobs.x]\nsorce = 'etc'", "backup.toml").unwrap_err();
//! assert!(typo.to_string().contains("backup.toml: jobs.x"));
//! assert!(typo.to_string().contains("expected one of"));
//! # Ok::<(), backup_core::Error>(())
//! ```
//!
//! Unknown keys are errors, and so are references to names that are not there. Human values are [`ByteSize`] (`64MiB`)
//! and [`Span`] (`90d`). Secrets never stand in a configuration: a [`SecretRef`] says where to find one.

mod component;
mod load;
mod model;
mod registry;
mod secret;
mod settings;
mod size;
mod span;

#[cfg(feature = "schema")]
mod schema;

pub use self::component::{Component, Place};
pub use self::model::{
    Argv, Config, HookFailure, JobConfig, KeyConfig, KeyKind, ReplicaConfig, RepositoryConfig,
    SetComponentConfig, SetConfig,
};
pub use self::registry::{Access, BuildContext, Registry};
#[cfg(feature = "schema")]
pub use self::schema::schema;
pub use self::secret::{Secret, SecretRef};
pub use self::settings::Settings;
pub use self::size::ByteSize;
pub use self::span::Span;

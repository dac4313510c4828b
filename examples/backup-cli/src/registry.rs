//! The kinds that this program knows.

use backup_core::config::Registry;

/// Every kind of the crates of this workspace. A program with kinds of its own adds them and calls
/// [`main`](crate::main).
///
/// ```
/// let mut registry = backup_cli::registry();
/// registry.transform("fast", |_| Ok(std::sync::Arc::new(backup_core::Zstd::new(-1)?) as _));
/// assert!(registry.kinds()["transforms"].contains(&"fast"));
/// ```
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    backup_sources::register(&mut registry);
    backup_sinks::register(&mut registry);
    backup_retention::register(&mut registry);
    registry
}

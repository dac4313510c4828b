//! What the tests of remote stores share: servers, a proxy that injects faults, sinks from settings.

// Every test is a program of its own and uses a part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod gcs;
pub mod http;
pub mod proxy;
pub mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use backup_core::config::{BuildContext, Component, Place, Registry};
use backup_core::{Result, Sink};

/// The bucket or container that the servers have.
pub const BUCKET: &str = "bucket";

/// Secrets as settings refer to them, without changing the environment of the test.
fn echo(secret: &str) -> String {
    format!("command:echo {secret}")
}

/// The settings of a sink in the S3 server at `address`.
pub fn s3_settings(address: SocketAddr, prefix: &str) -> Component {
    Component::new("s3")
        .with("bucket", BUCKET)
        .with("prefix", prefix)
        .with("endpoint", format!("http://{address}"))
        .with("region", "us-east-1")
        .with("allow_http", true)
        .with("timeout_seconds", 5)
        .with("access_key_id", echo("test"))
        .with("secret_access_key", echo("s3cret-of-the-test"))
}

/// The settings of a sink in the Azure server at `address`.
pub fn azure_settings(address: SocketAddr, prefix: &str) -> Component {
    Component::new("azure")
        .with("container", BUCKET)
        .with("prefix", prefix)
        .with("account", server::AZURITE_ACCOUNT)
        .with("endpoint", format!("http://{address}/{}", server::AZURITE_ACCOUNT))
        .with("allow_http", true)
        .with("timeout_seconds", 5)
        .with("account_key", echo(server::AZURITE_KEY))
}

/// The settings of a sink in the fake of Google's server at `address`.
pub fn gcs_settings(address: SocketAddr, prefix: &str) -> Component {
    Component::new("gcs")
        .with("bucket", BUCKET)
        .with("prefix", prefix)
        .with("endpoint", format!("http://{address}"))
        .with("allow_http", true)
        .with("timeout_seconds", 5)
        .with("anonymous", true)
}

/// The sink that these settings describe, made as a program makes it.
pub async fn make(settings: Component) -> Result<Arc<dyn Sink>> {
    let mut registry = Registry::new();
    backup_sinks::register(&mut registry);
    registry.make_sink(&Place::Kind(settings), "test.toml", "places.test", &BuildContext::default()).await
}

//! The kinds that this program knows.

use backup_core::config::Registry;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
use {
    backup_core::config::{BuildContext, Settings},
    backup_core::{Result, Source},
    backup_sinks::clouds,
    backup_sources::bucket::{BucketSource, readable},
    std::sync::Arc,
};

/// Every kind of the crates of this workspace; and the kind `bucket` of sources, for which two of them come together: its
/// `url` is `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, and its other settings are those of a sink
/// there. A program with kinds of its own adds them and calls [`main`](crate::main).
///
/// ```
/// let mut registry = backup_cli::registry();
/// registry.transform("fast", |_| Ok(std::sync::Arc::new(backup_core::Zstd::new(-1)?) as _));
/// assert!(registry.kinds()["transforms"].contains(&"fast"));
/// ```
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    backup_sources::register(&mut registry);
    #[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
    registry.source("bucket", bucket);
    backup_sinks::register(&mut registry);
    backup_retention::register(&mut registry);
    registry
}

#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
async fn bucket(settings: Settings, context: BuildContext) -> Result<Arc<dyn Source>> {
    let bucket = clouds::open(&settings, &context, Some(readable)).await?;
    let mut source = BucketSource::new(bucket.store, &bucket.prefix)
        .map_err(|e| settings.error(e.message()))?
        .named(bucket.place)
        .with_ordered_listing(bucket.ordered)
        .with_failures(clouds::explain);
    if let Some(patience) = bucket.patience {
        source = source.with_patience(patience);
    }
    Ok(Arc::new(source))
}

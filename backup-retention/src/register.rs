//! The kinds of this crate, for configurations.

use backup_core::config::Registry;

use crate::RetentionConfig;

/// Adds the kind `keep`, whose settings are those of [`RetentionConfig`].
///
/// ```
/// use backup_core::config::{Component, Registry};
///
/// let mut registry = Registry::new();
/// backup_retention::register(&mut registry);
/// let week = Component::new("keep").with("keep_daily", 7).with("time_zone", "Europe/Zurich");
/// let policy = registry.make_policy(&week, "an example", "policies.week")?;
/// let nothing = registry.make_policy(&Component::new("keep"), "an example", "policies.nothing").unwrap_err();
/// assert!(nothing.to_string().starts_with("an example: policies.nothing: "));
/// # Ok::<(), backup_core::Error>(())
/// ```
pub fn register(registry: &mut Registry) {
    registry.policy("keep", |settings| {
        let config: RetentionConfig = settings.parse()?;
        config.build().map_err(|error| settings.error(error))
    });
}

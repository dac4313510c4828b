//! Who makes what a configuration describes.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Component, Place, Secret, SecretRef, Settings};
use crate::transform::{Transform, Zstd};
use crate::{Error, JobContext, Result, RetentionPolicy, Sink, Source, Thaw};

/// Whether a place is expected to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// It is there; anything else is [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    #[default]
    Open,
    /// It may have to be made, for a new repository.
    Create,
}

/// What a factory is given beside the settings. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BuildContext {
    base: Option<PathBuf>,
    access: Access,
    job: JobContext,
    lent: BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl BuildContext {
    /// Building within `job`, with relative paths meant from the working directory.
    pub fn new(job: JobContext) -> Self {
        Self { base: None, access: Access::Open, job, lent: BTreeMap::new() }
    }

    /// The same context with relative paths meant from `base`.
    #[must_use]
    pub fn with_base(mut self, base: Option<&Path>) -> Self {
        self.base = base.map(Path::to_path_buf);
        self
    }

    /// The same context with this expectation of places.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// `path` as it is meant here.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base.as_ref().map_or_else(|| path.as_ref().to_path_buf(), |base| base.join(path.as_ref()))
    }

    /// The secret that `reference` points to.
    pub async fn secret(&self, reference: &SecretRef) -> Result<Secret> {
        reference.resolve(self.base.as_deref()).await
    }

    /// Whether a place may have to be made.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The same context with something that the program lends to factories of a kind that needs it: what no setting can say, as the
    /// archive of a log that a database's backup has to wait for. There is one of each type.
    ///
    /// ```
    /// use backup_core::config::BuildContext;
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct Department(&'static str);
    ///
    /// let context = BuildContext::default().lending(Department("sales"));
    /// assert_eq!(context.lent(), Some(&Department("sales")));
    /// assert_eq!(context.lent::<String>(), None);
    /// ```
    #[must_use]
    pub fn lending<T: Any + Send + Sync>(mut self, thing: T) -> Self {
        self.lent.insert(TypeId::of::<T>(), Arc::new(thing));
        self
    }

    /// What the program lends of this type.
    pub fn lent<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.lent.get(&TypeId::of::<T>()).and_then(|thing| thing.downcast_ref())
    }

    /// The job that the thing is made for.
    pub fn job(&self) -> &JobContext {
        &self.job
    }
}

type Making<T> = Pin<Box<dyn Future<Output = Result<Arc<T>>> + Send>>;
type Factory<T> = Arc<dyn Fn(Settings, BuildContext) -> Making<T> + Send + Sync>;
type PlainFactory<T> = Arc<dyn Fn(&Settings) -> Result<Arc<T>> + Send + Sync>;

/// The kinds that a configuration may name. Clones share the factories.
///
/// ```
/// use std::sync::Arc;
/// use backup_core::config::{Component, Registry};
/// use backup_core::{Transform, Zstd};
///
/// let mut registry = Registry::new();
/// registry.transform("fast", |settings| {
///     if !settings.values().is_empty() {
///         return Err(settings.error("`fast` has no settings"));
///     }
///     Ok(Arc::new(Zstd::new(-1)?) as Arc<dyn Transform>)
/// });
/// let made = registry.make_transform(&Component::new("fast"), "backup.toml", "transforms.quick")?;
/// assert_eq!(made.name(), "zstd");
///
/// let unknown = registry.make_transform(&Component::new("lz5"), "backup.toml", "transforms.x").unwrap_err();
/// assert!(unknown.to_string().contains("`fast`, `zstd`"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    sources: BTreeMap<String, Factory<dyn Source>>,
    sinks: BTreeMap<String, Factory<dyn Sink>>,
    schemes: BTreeMap<String, String>,
    thaws: BTreeMap<String, Factory<dyn Thaw>>,
    transforms: BTreeMap<String, PlainFactory<dyn Transform>>,
    policies: BTreeMap<String, PlainFactory<dyn RetentionPolicy>>,
}

impl Registry {
    /// The kinds of this crate: the transform `zstd`.
    pub fn new() -> Self {
        let mut registry = Self::default();
        registry.transform("zstd", |settings| {
            let settings: ZstdSettings = settings.parse()?;
            Ok(Arc::new(settings.level.map_or(Ok(Zstd::default()), Zstd::new)?) as Arc<dyn Transform>)
        });
        registry
    }

    /// Adds a kind of source; a later one of the same name replaces the earlier, here and below.
    pub fn source<F, M>(&mut self, kind: impl Into<String>, factory: F) -> &mut Self
    where
        F: Fn(Settings, BuildContext) -> M + Send + Sync + 'static,
        M: Future<Output = Result<Arc<dyn Source>>> + Send + 'static,
    {
        self.sources
            .insert(kind.into(), Arc::new(move |settings, context| Box::pin(factory(settings, context))));
        self
    }

    /// Adds a kind of sink and the URL schemes that mean it. Given a URL, the factory finds it under `url`; the kind with
    /// the scheme `file` finds a plain path under `path`.
    pub fn sink<F, M>(&mut self, kind: impl Into<String>, schemes: &[&str], factory: F) -> &mut Self
    where
        F: Fn(Settings, BuildContext) -> M + Send + Sync + 'static,
        M: Future<Output = Result<Arc<dyn Sink>>> + Send + 'static,
    {
        let kind = kind.into();
        for scheme in schemes {
            self.schemes.insert((*scheme).to_owned(), kind.clone());
        }
        self.sinks.insert(kind, Arc::new(move |settings, context| Box::pin(factory(settings, context))));
        self
    }

    /// Adds what asks for cold objects in places of a kind of sink, made from the same settings.
    pub fn thaw<F, M>(&mut self, kind: impl Into<String>, factory: F) -> &mut Self
    where
        F: Fn(Settings, BuildContext) -> M + Send + Sync + 'static,
        M: Future<Output = Result<Arc<dyn Thaw>>> + Send + 'static,
    {
        self.thaws
            .insert(kind.into(), Arc::new(move |settings, context| Box::pin(factory(settings, context))));
        self
    }

    /// Adds a kind of transform.
    pub fn transform<F>(&mut self, kind: impl Into<String>, factory: F) -> &mut Self
    where
        F: Fn(&Settings) -> Result<Arc<dyn Transform>> + Send + Sync + 'static,
    {
        self.transforms.insert(kind.into(), Arc::new(factory));
        self
    }

    /// Adds a kind of retention policy.
    pub fn policy<F>(&mut self, kind: impl Into<String>, factory: F) -> &mut Self
    where
        F: Fn(&Settings) -> Result<Arc<dyn RetentionPolicy>> + Send + Sync + 'static,
    {
        self.policies.insert(kind.into(), Arc::new(factory));
        self
    }

    /// Makes a source; `file` and `at` say in errors where it is described.
    pub async fn make_source(
        &self,
        component: &Component,
        file: &str,
        at: &str,
        context: &BuildContext,
    ) -> Result<Arc<dyn Source>> {
        let factory = find(&self.sources, &component.kind, "sources", file, at)?;
        factory(Settings::new(file, at, component.settings.clone()), context.clone()).await
    }

    /// Makes the sink of a place.
    pub async fn make_sink(
        &self,
        place: &Place,
        file: &str,
        at: &str,
        context: &BuildContext,
    ) -> Result<Arc<dyn Sink>> {
        let (kind, settings) = self.described(place, file, at)?;
        find(&self.sinks, kind, "sinks", file, at)?(settings, context.clone()).await
    }

    /// Makes what asks for cold objects of a place; none where places of its kind have no such objects.
    pub async fn make_thaw(
        &self,
        place: &Place,
        file: &str,
        at: &str,
        context: &BuildContext,
    ) -> Result<Option<Arc<dyn Thaw>>> {
        let (kind, settings) = self.described(place, file, at)?;
        match self.thaws.get(kind) {
            Some(factory) => factory(settings, context.clone()).await.map(Some),
            None => Ok(None),
        }
    }

    /// The kind of a place, and its settings.
    fn described<'a>(&'a self, place: &'a Place, file: &str, at: &str) -> Result<(&'a str, Settings)> {
        let url = match place {
            Place::Kind(component) => {
                return Ok((&component.kind, Settings::new(file, at, component.settings.clone())));
            }
            Place::Url(url) => url,
        };
        let (key, scheme) = Place::scheme(url).map_or(("path", "file"), |scheme| ("url", scheme));
        let settings = Settings::new(file, at, Map::from_iter([(key.to_owned(), Value::from(url.as_str()))]));
        match self.schemes.get(scheme) {
            Some(kind) => Ok((kind, settings)),
            None => {
                let known = list(self.schemes.keys());
                Err(settings.error(format!(
                    "no place has URLs that start with `{scheme}://`; known are a path and the schemes {known}"
                )))
            }
        }
    }

    /// Makes a transform.
    pub fn make_transform(&self, component: &Component, file: &str, at: &str) -> Result<Arc<dyn Transform>> {
        let factory = find(&self.transforms, &component.kind, "transforms", file, at)?;
        factory(&Settings::new(file, at, component.settings.clone()))
    }

    /// Makes a retention policy.
    pub fn make_policy(
        &self,
        component: &Component,
        file: &str,
        at: &str,
    ) -> Result<Arc<dyn RetentionPolicy>> {
        let factory = find(&self.policies, &component.kind, "policies", file, at)?;
        factory(&Settings::new(file, at, component.settings.clone()))
    }

    /// The names of all kinds: of sources, sinks, transforms and policies.
    pub fn kinds(&self) -> BTreeMap<&'static str, Vec<&str>> {
        BTreeMap::from([
            ("sources", self.sources.keys().map(String::as_str).collect()),
            ("sinks", self.sinks.keys().map(String::as_str).collect()),
            ("transforms", self.transforms.keys().map(String::as_str).collect()),
            ("policies", self.policies.keys().map(String::as_str).collect()),
        ])
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.kinds()).finish()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZstdSettings {
    level: Option<i32>,
}

fn find<'a, F>(
    factories: &'a BTreeMap<String, F>,
    kind: &str,
    what: &str,
    file: &str,
    at: &str,
) -> Result<&'a F> {
    factories.get(kind).ok_or_else(|| {
        let known = list(factories.keys());
        let at = if at.is_empty() { String::new() } else { format!("{at}.kind: ") };
        Error::invalid_input(format!(
            "{file}: {at}`{}` is not a kind of {what}; known are {known}",
            kind.escape_debug()
        ))
    })
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".into() } else { format!("`{}`", names.join("`, `")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_configured_by_its_level() {
        let registry = Registry::new();
        let make = |component: Component| registry.make_transform(&component, "b.toml", "transforms.x");
        assert_eq!(make(Component::new("zstd").with("level", 9)).unwrap().name(), "zstd");
        let unknown = make(Component::new("zstd").with("levle", 9)).unwrap_err().to_string();
        assert!(unknown.starts_with("b.toml: transforms.x.levle: unknown field"), "{unknown}");
        assert!(make(Component::new("zstd").with("level", 90)).is_err());
    }

    #[tokio::test]
    async fn places_are_found_by_kind_and_by_scheme() {
        let mut registry = Registry::new();
        registry.sink("echo", &["echo", "file"], |settings, _| async move {
            Err(settings.error(serde_json::to_string(settings.values()).unwrap()))
        });
        let context = BuildContext::default();
        let make = async |place| {
            registry.make_sink(&place, "b.toml", "places.x", &context).await.unwrap_err().to_string()
        };
        assert_eq!(make(Place::Url("echo://a/b".into())).await, r#"b.toml: places.x: {"url":"echo://a/b"}"#);
        assert_eq!(make(Place::Url("/srv".into())).await, r#"b.toml: places.x: {"path":"/srv"}"#);
        let kind = Place::Kind(Component::new("echo").with("n", 1));
        assert_eq!(make(kind).await, r#"b.toml: places.x: {"n":1}"#);
        assert!(make(Place::Url("ftp://x".into())).await.contains("a path and the schemes `echo`, `file`"));
        assert!(make(Place::Kind(Component::new("ftp"))).await.contains("known are `echo`"));
    }
}

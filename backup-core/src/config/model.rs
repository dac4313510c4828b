//! The tables of a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Component, Place, SecretRef, Span};

/// Everything that can be configured, in named tables. Names are made of letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// Repositories, over places and keys.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// Where objects are kept.
    pub places: BTreeMap<String, Place>,
    /// What unlocks repositories.
    pub keys: BTreeMap<String, KeyConfig>,
    /// What is backed up.
    pub sources: BTreeMap<String, Component>,
    /// Reversible changes to what is stored, such as compression.
    pub transforms: BTreeMap<String, Component>,
    /// Which snapshots to keep.
    pub policies: BTreeMap<String, Component>,
    /// What is backed up to where.
    pub jobs: BTreeMap<String, JobConfig>,
    /// Jobs that belong together.
    pub sets: BTreeMap<String, SetConfig>,
    /// Recoveries that are rehearsed.
    pub drills: BTreeMap<String, Component>,
    #[serde(skip)]
    pub(super) file: Option<PathBuf>,
}

impl Config {
    /// The file that this was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The directory of [`file`](Self::file): relative paths in a configuration are meant from there.
    pub fn base(&self) -> Option<&Path> {
        self.file.as_deref().and_then(Path::parent).filter(|base| !base.as_os_str().is_empty())
    }
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RepositoryConfig {
    /// The place its objects are kept in: what is backed up goes there first.
    pub place: String,
    /// What that place is on. Not given: the kind of place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// Whether that place is somewhere else than what is backed up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off_site: bool,
    /// What is kept in that place: a name in `policies`, for `forget` where no rules are given. Not given: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How many hundredths of what one source, host and label has a plan may forget there unless that very plan is confirmed.
    /// Not given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_share_percent: Option<u8>,
    /// Further places that hold the same repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaConfig>,
    /// The keys that unlock it, tried in this order, and for which a new repository is made. Empty: not encrypted.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The transforms applied to what is written, in this order, before encryption. Not given: zstd at level 3. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transforms: Option<Vec<String>>,
}

/// A further place of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReplicaConfig {
    /// A name in `places`.
    pub place: String,
    /// Whether a snapshot is acknowledged only when it is there, too; otherwise it is brought there as soon as possible.
    /// Not given: yes, unless the place is an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// What the place is on. Not given: the kind of place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// Whether it is somewhere else than what is backed up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off_site: bool,
    /// Only snapshots that are older than this are brought there: an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
    /// What is kept there: a name in `policies`. What it does not keep is not brought there, either. Not given: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How many hundredths of what one source, host and label has a plan may forget there unless that very plan is confirmed.
    /// Not given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_share_percent: Option<u8>,
}

impl ReplicaConfig {
    /// Whether what is acknowledged must be there.
    pub fn is_required(&self) -> bool {
        self.required.unwrap_or(self.older_than.is_none())
    }
}

/// What unlocks a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyConfig {
    /// What the secret is.
    pub kind: KeyKind,
    /// Where the secret is found.
    pub secret: SecretRef,
}

/// Kinds of secrets that unlock a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum KeyKind {
    /// Words that a person can remember.
    Passphrase,
    /// 32 random bytes in base64, as `head -c 32 /dev/urandom | base64` prints them.
    KeyFile,
}

/// A program and its arguments. It is run directly, without a shell.
pub type Argv = Vec<String>;

/// A source backed up to a repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobConfig {
    /// What is backed up: a name in `sources`.
    pub source: String,
    /// Where to: a name in `repositories`.
    pub repository: String,
    /// The series its snapshots belong to. Not given: the job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The host recorded in its snapshots. Not given: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The tenant whose data it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Free words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags of its snapshots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether what was compressed and encrypted is decoded again and compared before it is stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_encoding: bool,
    /// Commands run one after the other before; when one fails, no backup is made, unless `hook_failure` says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Argv>,
    /// Commands run one after the other afterwards, also when `before` or the backup failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Argv>,
    /// How long each command may take. Not given: one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_timeout: Option<Span>,
    /// What it means when one of these commands fails or takes too long.
    #[serde(default, skip_serializing_if = "HookFailure::is_default")]
    pub hook_failure: HookFailure,
}

/// What it means when a command before or after a job fails or takes too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum HookFailure {
    /// The job fails; before the backup: nothing is backed up.
    #[default]
    Fail,
    /// It is told, and the job goes on.
    Warn,
}

impl HookFailure {
    fn is_default(&self) -> bool {
        *self == Self::Fail
    }
}

impl JobConfig {
    /// A job without anything optional.
    pub fn new(source: impl Into<String>, repository: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            repository: repository.into(),
            label: None,
            host: None,
            tenant: None,
            description: None,
            tags: BTreeMap::new(),
            verify_encoding: false,
            before: Vec::new(),
            after: Vec::new(),
            hook_timeout: None,
            hook_failure: HookFailure::Fail,
        }
    }
}

/// Jobs that are run as one, in the order given, into one repository, with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetConfig {
    /// The components, in the order of backing up.
    pub components: Vec<SetComponentConfig>,
}

/// One job within a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetComponentConfig {
    /// A name in `jobs`.
    pub job: String,
    /// What the set calls it. Not given: the job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The place in the order of restoring: lower first.
    #[serde(default)]
    pub restore_order: u32,
    /// Whether the set fails where this component fails; otherwise the set becomes partial.
    #[serde(default = "yes")]
    pub required: bool,
}

impl SetComponentConfig {
    /// What the set calls the component.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.job)
    }
}

fn yes() -> bool {
    true
}

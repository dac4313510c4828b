//! Reading a configuration, and saying precisely what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Config;
use crate::{Error, ErrorKind, Result};

/// Largest configuration file in bytes.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name in a configuration.
const NAME_BYTES_MAX: usize = 64;

impl Config {
    /// Reads a file: JSON where its name ends in `.json`, otherwise TOML.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] names the file, the key and what is allowed there.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let shown = path.display();
        let failed = |e| Error::io(format!("the configuration {shown} cannot be read"), e);
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(CONFIG_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > CONFIG_BYTES_MAX) {
            let message =
                format!("{shown}: is longer than {CONFIG_BYTES_MAX} bytes, so hardly a configuration");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::invalid_input(format!("{shown}: is not UTF-8 text, so not a configuration"))
        })?;
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            Self::from_json(&text, path)
        } else {
            Self::from_toml(&text, path)
        }
    }

    /// Reads TOML; `file` is named in errors and is where relative paths are meant from.
    pub fn from_toml(text: &str, file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        // The parser's own rendering quotes the line, which may hold a secret: only its place is said.
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let place = e.span().map(|span| place_of(text, span.start)).unwrap_or_default();
            Error::invalid_input(format!("{}{place}: {}", file.display(), without_values(e.message())))
        })?;
        Self::from_value(json_of(toml::Value::Table(table)), file)
    }

    /// Reads JSON; `file` is named in errors and is where relative paths are meant from.
    pub fn from_json(text: &str, file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let value = serde_json::from_str(text).map_err(|e| {
            Error::invalid_input(format!("{}: {}", file.display(), without_values(&e.to_string())))
        })?;
        Self::from_value(value, file)
    }

    fn from_value(value: Value, file: &Path) -> Result<Self> {
        let mut config: Self = parse_value(value, &file.display().to_string(), "")?;
        config.file = Some(file.to_path_buf());
        config.validate().map_err(|what| Error::invalid_input(format!("{}: {what}", file.display())))?;
        Ok(config)
    }

    /// Names are well-formed, and what is referred to is there.
    fn validate(&self) -> Result<(), String> {
        check_names("repositories", &self.repositories)?;
        check_names("places", &self.places)?;
        check_names("keys", &self.keys)?;
        check_names("sources", &self.sources)?;
        check_names("transforms", &self.transforms)?;
        check_names("policies", &self.policies)?;
        check_names("jobs", &self.jobs)?;
        check_names("sets", &self.sets)?;
        check_names("drills", &self.drills)?;
        for (name, repository) in &self.repositories {
            let at = format!("repositories.{name}");
            refer(&format!("{at}.place"), &repository.place, "places", &self.places)?;
            let mut places = BTreeSet::from([repository.place.as_str()]);
            for replica in &repository.replicas {
                let at = format!("{at}.replicas");
                refer(&format!("{at}.place"), &replica.place, "places", &self.places)?;
                if !places.insert(&replica.place) {
                    let place = &replica.place;
                    return Err(format!(
                        "{at}.place: the repository is in `{place}` already; each place counts once"
                    ));
                }
                if let Some(policy) = &replica.policy {
                    refer(&format!("{at}.policy"), policy, "policies", &self.policies)?;
                }
                check_share(&at, replica.max_share_percent)?;
                if replica.is_required() && replica.older_than.is_some() {
                    return Err(format!(
                        "{at}: what is acknowledged is new, and `{}` holds only what is older, so it cannot be required",
                        replica.place
                    ));
                }
            }
            check_share(&at, repository.max_share_percent)?;
            if let Some(policy) = &repository.policy {
                refer(&format!("{at}.policy"), policy, "policies", &self.policies)?;
            }
            for key in &repository.keys {
                refer(&format!("{at}.keys"), key, "keys", &self.keys)?;
            }
            for transform in repository.transforms.iter().flatten() {
                refer(&format!("{at}.transforms"), transform, "transforms", &self.transforms)?;
            }
        }
        for (name, job) in &self.jobs {
            let at = format!("jobs.{name}");
            refer(&format!("{at}.source"), &job.source, "sources", &self.sources)?;
            refer(&format!("{at}.repository"), &job.repository, "repositories", &self.repositories)?;
            for (list, hooks) in [("before", &job.before), ("after", &job.after)] {
                if hooks.iter().any(|argv| argv.first().is_none_or(String::is_empty)) {
                    return Err(format!(
                        "{at}.{list}: a command is empty; write it as [\"program\", \"argument\"]"
                    ));
                }
            }
        }
        for (name, set) in &self.sets {
            self.validate_set(name, set)?;
        }
        Ok(())
    }

    fn validate_set(&self, name: &str, set: &super::SetConfig) -> Result<(), String> {
        let at = format!("sets.{name}.components");
        if self.jobs.contains_key(name) {
            return Err(format!("sets.{name}: a job has this name, too; `run {name}` would be ambiguous"));
        }
        if set.components.is_empty() {
            return Err(format!("{at}: a set needs at least one component"));
        }
        let mut names = BTreeSet::new();
        let mut repositories = BTreeSet::new();
        for component in &set.components {
            refer(&at, &component.job, "jobs", &self.jobs)?;
            if !names.insert(component.name()) {
                return Err(format!(
                    "{at}: the component `{}` stands there twice; give one another `name`",
                    component.name()
                ));
            }
            repositories.extend(self.jobs.get(&component.job).map(|job| job.repository.as_str()));
        }
        if repositories.len() > 1 {
            let list = repositories.into_iter().collect::<Vec<_>>().join("`, `");
            return Err(format!("{at}: the jobs of a set share one repository, these have `{list}`"));
        }
        Ok(())
    }
}

/// Makes a `T` of `value`; errors read `file: key.path: what is wrong`.
pub(super) fn parse_value<T: DeserializeOwned>(value: Value, file: &str, at: &str) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = match (at, e.path().to_string()) {
            (at, path) if path == "." => at.to_owned(),
            ("", path) => path,
            (at, path) => format!("{at}.{path}"),
        };
        let path = if path.is_empty() { path } else { format!("{path}: ") };
        Error::invalid_input(format!("{file}: {path}{}", without_values(&e.inner().to_string())))
    })
}

fn check_names<T>(table: &str, entries: &BTreeMap<String, T>) -> Result<(), String> {
    let well_formed = |name: &str| {
        !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match entries.keys().find(|name| !well_formed(name)) {
        Some(name) => Err(format!(
            "{table}: `{}` is not a name; names have 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_`, `-`",
            name.escape_debug()
        )),
        None => Ok(()),
    }
}

fn check_share(at: &str, percent: Option<u8>) -> Result<(), String> {
    match percent {
        Some(percent) if percent > 100 => {
            Err(format!("{at}.max_share_percent: {percent} is more than all; say up to 100"))
        }
        _ => Ok(()),
    }
}

fn refer<T>(at: &str, name: &str, table: &str, entries: &BTreeMap<String, T>) -> Result<(), String> {
    if entries.contains_key(name) {
        return Ok(());
    }
    let known: Vec<&str> = entries.keys().map(String::as_str).collect();
    let known = if known.is_empty() {
        "there are none".into()
    } else {
        format!("there are `{}`", known.join("`, `"))
    };
    Err(format!("{at}: `{}` is not in `{table}`; {known}", name.escape_debug()))
}

/// `:line:column` of a byte in a text.
fn place_of(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count().saturating_add(1);
    let column = before.chars().rev().take_while(|char| *char != '\n').count().saturating_add(1);
    format!(":{line}:{column}")
}

/// serde says `invalid type: string "value", expected …`; the value may be a secret that stands in the wrong place.
fn without_values(message: &str) -> String {
    match message.split_once("string \"") {
        Some((start, rest)) => {
            let end = rest
                .rfind("\", expected")
                .map_or("", |end| rest.get(end.saturating_add(1)..).unwrap_or_default());
            format!("{start}string{end}")
        }
        None => message.to_owned(),
    }
}

/// TOML has times as values; JSON and so the model have them as text.
fn json_of(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(values) => Value::Array(values.into_iter().map(json_of).collect()),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json_of(value))).collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = Config::from_toml(text, "b.toml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn errors_name_the_file_the_key_and_what_is_allowed() {
        for (text, expected) in [
            ("a = [", &["b.toml:1:"][..]),
            ("repository = 1", &["b.toml: repository: unknown field `repository`", "`repositories`"]),
            (
                "[repositories.x]\nplace = 'y'\nkey = []",
                &["b.toml: repositories.x.key: ", "`place`", "`keys`"],
            ),
            (
                "[repositories.x]\nplace = 'y'",
                &["repositories.x.place: `y` is not in `places`", "there are none"],
            ),
            ("[repositories.x]", &["repositories.x: missing field `place`"]),
            ("[places.x]\npath = '/srv'", &["places.x: a place needs `url`, or `kind`"]),
            ("[sources.x]\npaths = []", &["sources.x: missing field `kind`"]),
            ("[sources.'ä b']\nkind = 'files'", &["sources: `ä b` is not a name"]),
            (
                "[keys.x]\nkind = 'password'\nsecret = 'env:X'",
                &["keys.x.kind: unknown variant", "`passphrase` or `key-file`"],
            ),
            (
                "[places.p]\nurl='/x'\n[repositories.r]\nplace='p'\n[sources.s]\nkind='f'\n[jobs.j]\nsource='s'\nrepository='r'\nbefore=[[]]",
                &["jobs.j.before: a command is empty"],
            ),
            ("[jobs.j]\nsource='s'\nrepository='r'", &["jobs.j.source: `s` is not in `sources`"]),
            ("[sets.s]\ncomponents=[]", &["sets.s.components: a set needs"]),
            ("[sets.s]\ncomponents=[{job='x'}]", &["sets.s.components: `x` is not in `jobs`"]),
            ("[sets.s]\ncomponents=[{job='x', prio=1}]", &["sets.s.components[0].prio: unknown field"]),
        ] {
            let error = refused(text);
            for part in expected {
                assert!(error.contains(part), "{text}\n{error}");
            }
        }
    }

    #[test]
    fn errors_do_not_repeat_values() {
        for text in [
            "[keys]\noffice = 'hunter2'",
            "[keys.office]\nkind = 'passphrase'\nsecret = 'hunter2'",
            "[keys.office]\nkind = 'passphrase'\nsecret = 'hunter2",
            "keys = 'hunter2'",
        ] {
            assert!(!refused(text).contains("hunter2"), "{}", refused(text));
        }
        let json = Config::from_json(r#"{"keys": "hunter2"}"#, "b.json").unwrap_err().to_string();
        assert!(!json.contains("hunter2") && json.starts_with("b.json: keys: "), "{json}");
    }

    #[test]
    fn a_set_has_distinct_components_of_one_repository() {
        let base = "[places.p]\nurl='/x'\n[repositories.r]\nplace='p'\n[repositories.q]\nplace='p'\n[sources.s]\nkind='files'\n\
            [jobs.a]\nsource='s'\nrepository='r'\n[jobs.b]\nsource='s'\nrepository='q'\n";
        let set = |components: &str| format!("{base}[sets.all]\ncomponents = [{components}]");
        assert!(
            Config::from_toml(&set("{job='a'}, {job='a', name='again', required=false}"), "b.toml").is_ok()
        );
        assert!(refused(&set("{job='a'}, {job='a'}")).contains("twice"));
        assert!(refused(&set("{job='a'}, {job='b'}")).contains("share one repository"));
    }

    #[test]
    fn files_that_are_no_configuration_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Config::load(directory.path()).is_err());
        assert_eq!(Config::load(directory.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
        let binary = directory.path().join("binary.toml");
        std::fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(Config::load(&binary).unwrap_err().to_string().contains("not UTF-8"));
        assert_eq!(Config::load("/dev/zero").unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml =
            Config::from_toml("[sources.x]\nkind='k'\nsince=2026-01-01\nn=1\nf=1.5\nb=true", "b").unwrap();
        let text = serde_json::to_string(&toml).unwrap();
        assert_eq!(Config::from_json(&text, "b").unwrap(), toml);
    }
}

//! How dumps are kept, and what their entries are called.

use std::fmt;
use std::str::FromStr;

use backup_core::{EntryName, Error, Result};
use serde::{Deserialize, Serialize};

/// Below which name dumps of databases stand.
pub(super) const DATABASES: &str = "databases";
/// The entry with roles and tablespaces.
pub(super) const GLOBALS: &str = "globals.sql";
/// How the name of a dump in one piece ends.
const CUSTOM_ENDING: &str = ".dump";

/// The formats of `pg_dump` that are backed up. There is none of SQL scripts: who restores one runs on the own machine what a database's owner
/// wrote into it (CVE-2025-8714 and 8715).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpFormat {
    /// One stream for each database, which never lies on a disk: `databases/NAME.dump`.
    #[default]
    Custom,
    /// A directory for each database, with a file for each table: `databases/NAME/…`. Several connections dump it, into a scratch directory.
    Directory,
}

impl DumpFormat {
    /// Its name, as `pg_dump` has it: `custom`, `directory`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Directory => "directory",
        }
    }

    /// The entry of a database's dump.
    pub(super) fn entry(self, database: &str) -> Result<EntryName> {
        let name = encoded(database);
        match self {
            Self::Custom => EntryName::new(format!("{DATABASES}/{name}{CUSTOM_ENDING}")),
            Self::Directory => EntryName::new(format!("{DATABASES}/{name}")),
        }
    }

    /// The database whose dump an entry is, or is in.
    pub(super) fn database(self, entry: &EntryName) -> Option<String> {
        let mut components = entry.components();
        if components.next()? != DATABASES.as_bytes() {
            return None;
        }
        let name = std::str::from_utf8(components.next()?).ok()?;
        let name = match self {
            Self::Custom => name.strip_suffix(CUSTOM_ENDING)?,
            Self::Directory => name,
        };
        decoded(name)
    }
}

impl fmt::Display for DumpFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DumpFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "custom" => Ok(Self::Custom),
            "directory" => Ok(Self::Directory),
            other => {
                let message =
                    format!("`{}` is no format of a dump; custom and directory are", other.escape_debug());
                Err(Error::invalid_input(message))
            }
        }
    }
}

/// The name of a database as one component of an entry's name: what has a meaning in paths, to shells or terminals is written as `%` and two digits.
fn encoded(database: &str) -> String {
    let mut name = String::with_capacity(database.len());
    for character in database.chars() {
        let plain = character.is_ascii_alphanumeric() || "_-+@,~".contains(character);
        let harmless = !character.is_ascii() && !character.is_control();
        if plain || harmless || (character == '.' && !name.is_empty()) {
            name.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    name
}

/// The database of such a name; none where no database has it.
fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut left = name.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first == b'%' {
            let (digits, rest) = left.split_at_checked(2)?;
            bytes.extend(hex::decode(digits).ok()?);
            left = rest;
        } else {
            bytes.push(*first);
        }
    }
    let database = String::from_utf8(bytes).ok()?;
    (!database.is_empty() && !database.contains('\0') && encoded(&database) == name).then_some(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_database_has_one_entry_and_comes_back() {
        let names = [
            "shop",
            "Shop",
            "a b",
            "a/b",
            "../../etc",
            ".",
            "..",
            ".hidden",
            "x.dump",
            "100%",
            "a=b host=evil",
            "quo'te\"d",
            "new\nline",
            "Ä größe",
            "\u{85}",
            "-d",
        ];
        let mut seen = std::collections::BTreeSet::new();
        for format in [DumpFormat::Custom, DumpFormat::Directory] {
            for name in names {
                let entry = format.entry(name).unwrap();
                assert_eq!(entry.components().count(), 2, "{entry}");
                assert_eq!(format.database(&entry).as_deref(), Some(name), "{entry}");
                assert!(seen.insert(entry));
            }
            assert_eq!(format.as_str().parse::<DumpFormat>().unwrap(), format);
        }
        assert_eq!(DumpFormat::Custom.entry("a b").unwrap().to_string(), "databases/a%20b.dump");
        for foreign in
            ["globals.sql", "databases/%", "databases/%zz", "databases/%61", "databases/a%00", "else/a"]
        {
            assert_eq!(DumpFormat::Directory.database(&EntryName::new(foreign).unwrap()), None, "{foreign}");
        }
    }
}

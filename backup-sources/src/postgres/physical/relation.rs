//! Which files of a data directory hold pages of relations, and which are not copied.
//!
//! What is left out is what the server leaves out of a base backup: see `basebackup.c` and the section "The Data Directory"
//! of the chapter "Making a Base Backup Using the Low Level API" of the PostgreSQL manual.

use std::collections::HashSet;

/// The files that belong to a relation: its rows, the map of free space, the map of visibility, and what an unlogged one is
/// emptied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fork {
    Main,
    Fsm,
    Vm,
    Init,
}

impl Fork {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Fsm => "fsm",
            Self::Vm => "vm",
            Self::Init => "init",
        }
    }
}

/// A segment file of a fork of a relation, by its name in a database's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelationFile {
    pub(super) number: u32,
    pub(super) fork: Fork,
    /// Which of the files that a long fork is spread over.
    pub(super) segment: u32,
}

impl RelationFile {
    /// The relation file of this name: `16384`, `16384_fsm`, `16384.3`, `16384_vm.1`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, number(segment)?),
            None => (name, 0),
        };
        let (stem, fork) = match stem.split_once('_') {
            Some((stem, "fsm")) => (stem, Fork::Fsm),
            Some((stem, "vm")) => (stem, Fork::Vm),
            Some((stem, "init")) => (stem, Fork::Init),
            Some(_) => return None,
            None => (stem, Fork::Main),
        };
        Some(Self { number: number(stem)?, fork, segment })
    }
}

/// Decimal digits without a leading zero.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// Whether the files of this directory belong to one database, or to the whole cluster: there, names mean relations.
/// `version_directory` is what the directory of this version in a tablespace is called.
pub(super) fn is_database(directory: &str, version_directory: &str) -> bool {
    let parts: Vec<&str> = directory.split('/').collect();
    match *parts.as_slice() {
        ["global"] => true,
        ["base", database] => number(database).is_some(),
        ["pg_tblspc", space, version, database] => {
            number(space).is_some() && version == version_directory && number(database).is_some()
        }
        _ => false,
    }
}

/// Directories whose content the server makes anew when it starts; they are copied without it.
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Files at the top that belong to the running server, to an earlier backup, or to whoever sets up a recovery.
const NOT_COPIED: [&str; 12] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "backup_manifest.tmp",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// Whether a directory's content is not copied. `statistics` is where versions before 15 were told to keep theirs.
pub(super) fn is_emptied(directory: &str, statistics: Option<&str>) -> bool {
    EMPTIED.contains(&directory) || statistics == Some(directory)
}

/// Whether a file or directory is not copied at all, whatever else stands beside it.
pub(super) fn is_excluded(path: &str, in_database: bool) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    // What queries sort on disk, and the cache of the catalogue, which replay does not know of.
    name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
        || NOT_COPIED.contains(&path)
        || path == "global/pg_control"
        || (in_database && is_temporary(name))
}

/// Whether a name in a database's directory is that of a temporary relation: `t3_16384`, `t3_16384_fsm.1`.
fn is_temporary(name: &str) -> bool {
    let rest = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
    rest.is_some_and(|(backend, relation)| {
        !backend.is_empty()
            && backend.bytes().all(|byte| byte.is_ascii_digit())
            && RelationFile::parse(relation).is_some()
    })
}

/// The relations of a directory that are emptied after a crash, and so after a restore: those with an init fork.
pub(super) fn unlogged<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<u32> {
    let init = names.filter_map(RelationFile::parse).filter(|file| file.fork == Fork::Init);
    init.map(|file| file.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_known_by_their_names() {
        let file = |name| RelationFile::parse(name).map(|file| (file.number, file.fork, file.segment));
        assert_eq!(file("16384"), Some((16384, Fork::Main, 0)));
        assert_eq!(file("16384_fsm"), Some((16384, Fork::Fsm, 0)));
        assert_eq!(file("16384_vm.12"), Some((16384, Fork::Vm, 12)));
        assert_eq!(file("1259.1"), Some((1259, Fork::Main, 1)));
        assert_eq!(file("16384_init"), Some((16384, Fork::Init, 0)));
        for name in [
            "",
            "pg_filenode.map",
            "PG_VERSION",
            "016384",
            "16384_",
            "16384_x",
            "16384.",
            "16384.01",
            "t3_16384",
        ] {
            assert_eq!(file(name), None, "{name}");
        }
        assert!(file("4294967296").is_none());
    }

    #[test]
    fn names_mean_relations_only_in_directories_of_databases() {
        let version = "PG_15_202209061";
        for directory in ["global", "base/5", "pg_tblspc/16400/PG_15_202209061/5"] {
            assert!(is_database(directory, version), "{directory}");
        }
        for directory in
            ["", "base", "base/pgsql_tmp", "pg_xact", "pg_tblspc/16400/PG_14_202107181/5", "x/base/5"]
        {
            assert!(!is_database(directory, version), "{directory}");
        }
    }

    #[test]
    fn trap_31_what_the_server_makes_anew_is_left_out() {
        for path in
            ["base/pgsql_tmp", "base/pgsql_tmp/pgsql_tmp12.0", "base/5/pg_internal.init.77", "postmaster.pid"]
        {
            assert!(is_excluded(path, path.starts_with("base/5")), "{path}");
        }
        for path in ["base/5/t3_16384", "base/5/t12_16384_fsm", "base/5/t0_1.4"] {
            assert!(is_excluded(path, true), "{path}");
        }
        for path in [
            "t3_16384",
            "base/5/tx_16384",
            "base/5/t3_x",
            "base/5/16384",
            "base/5/backup_label",
            "pg_hba.conf",
        ] {
            assert!(!is_excluded(path, path.starts_with("base/5")), "{path}");
        }
        assert!(is_emptied("pg_replslot", None) && !is_emptied("pg_xact", None));
        assert!(is_emptied("stats", Some("stats")));
        let names = ["16384", "16384_init", "16385", "16385_fsm"];
        assert_eq!(unlogged(names.into_iter()), HashSet::from([16384]));
    }
}

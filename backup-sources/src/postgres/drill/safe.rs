//! How a server is started so that it does nothing but answer whoever rehearses.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use backup_core::{Error, Result};

use super::scratch::Scratch;
use crate::postgres::recovery::{Programs, Server};

/// What a server that recovers must have at least as much of as the one whose log it replays, by the names that `pg_controldata` and
/// settings have for it.
const REQUIRED: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// The configuration of a drill's server. The cluster's own is not read: it is made for another machine, and for work.
pub(super) async fn configuration(programs: &Programs, owner: (u32, u32), data: &Path) -> Result<String> {
    let output = programs.run("pg_controldata", owner, &["-D".as_ref(), data.as_os_str()]).await?;
    let mut text = String::from("# A rehearsal of a recovery.\n");
    for (label, setting) in REQUIRED {
        let line = output.lines().find_map(|line| line.strip_prefix(label)?.trim_start().strip_prefix(':'));
        let value: u32 = line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| {
            Error::corruption(format!("`pg_controldata` does not tell the {label} of the restored cluster"))
        })?;
        text.push_str(&format!("{setting} = {value}\n"));
    }
    Ok(text)
}

/// Writes what the server reads beside the data directory: its configuration, and who may connect, which is whoever reaches the socket in
/// a directory that only its user can enter.
///
/// The directory is that user's already, whose other programs may have put something there: what stands there is not written to, and no link is
/// followed.
pub(super) fn write(scratch: &Scratch, configuration: &str, owner: Option<(u32, u32)>) -> Result<()> {
    let files =
        [("postgresql.conf", configuration), ("pg_hba.conf", "local all all trust\n"), ("pg_ident.conf", "")];
    for (name, text) in files {
        let path = scratch.path().join(name);
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            match owner {
                Some((user, group)) => fchown(&file, Some(user), Some(group)),
                None => Ok(()),
            }
        };
        write().map_err(|error| Error::io(format!("`{}` cannot be written", path.display()), error))?;
    }
    Ok(())
}

/// The same server, told to keep to itself. What is said here wins over whatever the cluster's files say.
pub(super) fn keep_to_itself(server: Server, scratch: &Scratch, preload: &str) -> Server {
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let major = server.programs().major();
    let mut settings: Vec<(&str, String)> = vec![
        ("config_file", file("postgresql.conf")),
        ("hba_file", file("pg_hba.conf")),
        ("ident_file", file("pg_ident.conf")),
        // Nobody but who rehearses gets in, and nothing is sent out.
        ("listen_addresses", String::new()),
        ("unix_socket_permissions", "0700".into()),
        ("ssl", "off".into()),
        ("archive_mode", "off".into()),
        ("archive_command", String::new()),
        ("primary_conninfo", String::new()),
        ("primary_slot_name", String::new()),
        ("max_logical_replication_workers", "0".into()),
        ("synchronous_standby_names", String::new()),
        // Schedulers and whatever else starts by itself.
        ("shared_preload_libraries", preload.into()),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        ("autovacuum", "off".into()),
        ("jit", "off".into()),
        ("default_transaction_read_only", "on".into()),
        // It may run beside others, on a smaller machine.
        ("shared_buffers", "128MB".into()),
        ("huge_pages", "off".into()),
        ("temp_tablespaces", String::new()),
        ("default_tablespace", String::new()),
        ("external_pid_file", String::new()),
        ("restart_after_crash", "off".into()),
        ("hot_standby", "on".into()),
        ("cluster_name", "drill".into()),
    ];
    if major >= 15 {
        settings.push(("archive_library", String::new()));
    }
    if major >= 17 {
        settings.push(("event_triggers", "off".into()));
        settings.push(("sync_replication_slots", "off".into()));
    }
    settings.into_iter().fold(server, |server, (name, value)| server.with(name, value))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_somebody_put_into_the_directory_first_is_not_written_to() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path(), None).unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::write(&elsewhere, "of somebody else").unwrap();
        let planted = scratch.path().join("pg_hba.conf");
        for target in [elsewhere.as_path(), &parent.path().join("new")] {
            symlink(target, &planted).unwrap();
            let error = write(&scratch, "port = 1\n", None).unwrap_err().to_string();
            assert!(error.contains("pg_hba.conf"), "{error}");
            assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "of somebody else");
            assert!(!parent.path().join("new").exists());
            fs::remove_file(&planted).unwrap();
            fs::remove_file(scratch.path().join("postgresql.conf")).unwrap();
        }
        let own = fs::metadata(scratch.path()).unwrap();
        write(&scratch, "port = 1\n", Some((own.uid(), own.gid()))).unwrap();
        let written = scratch.path().join("postgresql.conf");
        assert_eq!(fs::read_to_string(&written).unwrap(), "port = 1\n");
        assert_eq!(fs::metadata(&written).unwrap().mode() & 0o777, 0o600);
        scratch.remove().unwrap();
    }
}

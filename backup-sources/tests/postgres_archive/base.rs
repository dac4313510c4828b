//! Base backups in directories, and restores of them by hand.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use backup_core::{
    BlockingWriter, Entry, EntryKind, JobContext, PosixMetadata, RestoreReport, Skipped, Target, Timestamp,
    Writer,
};
use backup_sources::postgres::Lsn;
use backup_sources::postgres::recovery::{BaseBackup, parse_time};
use backup_sources::postgres::wal::{SegmentName, SegmentSize};

use crate::postgres_server::{Cluster, run};

/// A base backup: a copy of the files, with what tablespaces have below `pg_tblspc`, and what is known of it.
#[derive(Debug)]
pub struct Base {
    pub backup: BaseBackup,
    root: tempfile::TempDir,
}

impl Base {
    /// Copies a cluster by `pg_basebackup`.
    pub fn take(cluster: &Cluster, id: &str) -> Self {
        let root = tempfile::Builder::new().prefix("base").tempdir().unwrap();
        cluster.account().own(root.path());
        let plain = root.path().join("plain");
        let list = "select oid, pg_tablespace_location(oid) from pg_tablespace where oid > 16383";
        let mut tablespaces = BTreeMap::new();
        let mut arguments = Vec::new();
        for line in cluster.sql(list).lines() {
            let (oid, place) = line.split_once('|').unwrap();
            tablespaces.insert(oid.parse::<u32>().unwrap(), PathBuf::from(place));
            arguments.push(format!("--tablespace-mapping={place}={}", root.path().join(oid).display()));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        cluster.base_backup(&plain, &arguments);
        // With links followed, so that the files of tablespaces stand below `pg_tblspc`, and again as the cluster's account.
        let files = root.path().join("files");
        run(cluster.account().command("cp").args(["-aL"]).arg(&plain).arg(&files));
        let stop_time = cluster.sql("select clock_timestamp() at time zone 'UTC'");
        let label = fs::read_to_string(files.join("backup_label")).unwrap();
        let line =
            |key: &str| label.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).unwrap();
        let start_lsn: Lsn = line("START WAL LOCATION").split(' ').next().unwrap().parse().unwrap();
        let manifest = fs::read_to_string(files.join("backup_manifest")).unwrap();
        let (_, stop) = manifest.rsplit_once("\"End-LSN\": \"").unwrap();
        let stop_lsn: Lsn = stop.split('"').next().unwrap().parse().unwrap();
        let setting =
            |name: &str| cluster.sql(&format!("select setting from pg_settings where name = '{name}'"));
        let segment_size = SegmentSize::new(setting("wal_segment_size").parse().unwrap()).unwrap();
        let timeline = line("START TIMELINE").parse::<u32>().unwrap();
        let timeline = backup_sources::postgres::Timeline::new(timeline);
        let segment = |lsn: Lsn| SegmentName::before(timeline, lsn, segment_size).to_string();
        let oids: BTreeMap<String, &PathBuf> =
            tablespaces.iter().map(|(oid, place)| (oid.to_string(), place)).collect();
        let positions = [
            ("system_identifier", cluster.system_identifier().to_string()),
            ("timeline", timeline.get().to_string()),
            ("start_lsn", start_lsn.to_string()),
            ("stop_lsn", stop_lsn.to_string()),
            ("start_segment", SegmentName::of(timeline, start_lsn, segment_size).to_string()),
            ("stop_segment", segment(stop_lsn)),
            ("start_time", parse_time(&line("START TIME").replace(" UTC", "Z")).unwrap().to_string()),
            ("stop_time", parse_time(&format!("{stop_time}Z")).unwrap().to_string()),
            ("server_version", setting("server_version_num")),
            ("block_bytes", setting("block_size")),
            ("wal_segment_bytes", setting("wal_segment_size")),
            ("data_checksums", setting("data_checksums")),
            ("from", line("BACKUP FROM").to_owned()),
            ("tablespaces", serde_json::to_string(&oids).unwrap()),
        ];
        let positions = positions.map(|(name, value)| (name.to_owned(), value)).into();
        let mut backup = BaseBackup::from_positions(id, &positions).unwrap();
        backup.bytes = tree(&files).iter().map(|(_, metadata)| metadata.len()).sum();
        Self { backup, root }
    }

    /// The copied files.
    pub fn files(&self) -> PathBuf {
        self.root.path().join("files")
    }
}

fn tree(root: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            if metadata.is_dir() {
                open.push(entry.path());
            }
            found.push((entry.path(), metadata));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// What the engine does with a snapshot of these files: all entries, contents only where they differ, directories last.
pub async fn restore_tree(
    root: &Path,
    target: &dyn Target,
    job: &JobContext,
) -> backup_core::Result<RestoreReport> {
    let mut report = RestoreReport::default();
    target.begin(job).await?;
    let compares = target.holds_content();
    let mut directories = Vec::new();
    for (path, metadata) in tree(root) {
        tokio::task::yield_now().await;
        job.check()?;
        let name = path.strip_prefix(root).unwrap().as_os_str().as_encoded_bytes().to_vec();
        let posix = PosixMetadata {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: Timestamp::new(metadata.mtime(), 0),
        };
        let kind = if metadata.is_dir() { EntryKind::Directory } else { EntryKind::File };
        let mut entry = Entry::new(&name, kind)?.with_posix(posix);
        if !metadata.is_dir() {
            entry = entry.with_size(metadata.len());
        } else {
            directories.push(entry.clone());
        }
        let Writer::Blocking(open) = target.entry(&entry).await? else { continue };
        let written = write(open, &path, &metadata, compares);
        match written {
            Ok((written, unchanged)) => {
                report.entries_written += 1;
                report.bytes_written += written;
                report.bytes_unchanged += unchanged;
            }
            Err(error) => report.failed.push(Skipped::new(&entry.name, error)),
        }
    }
    directories.reverse();
    for skipped in target.complete(directories).await? {
        report.failed.push(skipped);
    }
    for skipped in target.finish().await? {
        report.failed.push(skipped);
    }
    Ok(report)
}

type Open = Box<dyn FnOnce() -> std::io::Result<Box<dyn BlockingWriter>> + Send>;

fn write(open: Open, path: &Path, metadata: &fs::Metadata, compares: bool) -> std::io::Result<(u64, u64)> {
    let writer = open()?;
    let (mut written, mut unchanged) = (0, 0);
    let len = if metadata.is_dir() { 0 } else { metadata.len() };
    if len > 0 {
        let file = fs::File::open(path)?;
        let mut offset = 0;
        while offset < len {
            let mut piece = vec![0; usize::try_from((len - offset).min(1 << 17)).unwrap()];
            file.read_exact_at(&mut piece, offset)?;
            let mut there = vec![0; piece.len()];
            let end = offset + piece.len() as u64;
            let is_there = compares
                && end <= writer.existing_len()
                && writer.read_exact_at(&mut there, offset).is_ok()
                && there == piece;
            if is_there {
                unchanged += piece.len() as u64;
            } else {
                writer.write_all_at(&piece, offset)?;
                written += piece.len() as u64;
            }
            offset = end;
        }
    }
    writer.finish(len)?;
    Ok((written, unchanged))
}

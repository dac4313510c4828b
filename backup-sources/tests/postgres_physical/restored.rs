//! Restored clusters start and have the rows that the source had.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::{
    BlockingWriter, Entry, EntryKind, EntryName, Error, JobContext, Result, Skipped, Target, WriteOrder,
    Writer,
};

use crate::postgres_server::{Cluster, eventually};
use crate::{Setup, both, check_pages, end, keeping, local, over_sql, read, sums};

/// Puts a cluster's files into a directory, and its tablespaces beside it, as whoever restores by hand would.
#[derive(Debug)]
pub struct PlacedTarget {
    root: PathBuf,
    moved: Mutex<Vec<(String, PathBuf)>>,
}

struct Placed(fs::File);

impl PlacedTarget {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), moved: Mutex::default() }
    }

    pub fn moved(&self) -> Vec<(String, PathBuf)> {
        self.moved.lock().unwrap().clone()
    }

    fn path(&self, name: &EntryName) -> PathBuf {
        self.root.join("data").join(name.to_string())
    }
}

impl BlockingWriter for Placed {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn finish(self: Box<Self>, len: u64) -> io::Result<Vec<String>> {
        self.0.set_len(len)?;
        Ok(Vec::new())
    }

    fn abort(self: Box<Self>) {}
}

#[async_trait]
impl Target for PlacedTarget {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        let data = self.root.join("data");
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        Ok(())
    }

    async fn entry(&self, entry: &Entry) -> Result<Writer> {
        let path = self.path(&entry.name);
        match &entry.kind {
            EntryKind::Directory => {
                fs::create_dir(&path)?;
                let mode = entry.posix.unwrap().mode;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                Ok(Writer::Skip)
            }
            EntryKind::Symlink { target } => {
                let name = format!("tablespace-{}", String::from_utf8_lossy(entry.name.file_name()));
                let place = self.root.join(name);
                fs::create_dir(&place)?;
                symlink(&place, &path)?;
                let from = String::from_utf8(target.to_vec()).unwrap();
                self.moved.lock().unwrap().push((from, place));
                Ok(Writer::Skip)
            }
            EntryKind::File => {
                let mode = entry.posix.unwrap().mode;
                Ok(Writer::blocking(move || {
                    let file = fs::File::create_new(&path)?;
                    file.set_permissions(fs::Permissions::from_mode(mode))?;
                    Ok(Placed(file))
                }))
            }
            other => Err(Error::invalid_input(format!("a {} in a data directory", other.as_str()))),
        }
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_load_with_tablespaces_starts_again_with_its_rows() {
    let cluster = keeping().start();
    let place = cluster.tablespace("fast");
    cluster.bench_init_with(3, &["--tablespace=fast"]);
    cluster.sql("create table here as select g, repeat(md5(g::text), 20) t from generate_series(1, 20000) g");
    let setup = Setup::new().await;
    for source in both(&cluster) {
        let load = cluster.load(3);
        let report = setup.backup(&source).await;
        end(load, &cluster);
        assert!(report.bytes_logical > 50 << 20, "{report:?}");
        let expected = (sums(&cluster), cluster.checksum("postgres", "here"));
        let restored = setup.restore(&report).await;
        restored.verify(&cluster);
        assert_eq!(restored.moved.len(), 1);
        assert_eq!(restored.moved[0].0, place.to_str().unwrap());
        let (server, _files) = restored.start(&cluster);
        assert_eq!((sums(&server), server.checksum("postgres", "here")), expected);
        let there =
            server.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'");
        assert_ne!(there, place.to_str().unwrap(), "the restored server writes into the source's tablespace");
        check_pages(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_manifest_of_sha256_and_without_checksums_of_pages_it_verifies_too() {
    let cluster = keeping().without_checksums().initdb("--wal-segsize=1").start();
    cluster.bench_init(1);
    let setup = Setup::new().await;
    let sha256 = backup_sources::postgres::physical::ManifestChecksum::Sha256;
    let source = over_sql(&cluster).manifest_checksum(sha256).label("it's \"this\" one").build().unwrap();
    let report = setup.backup(&source).await;
    let position = setup.position(&report).await;
    assert_eq!((&*position["data_checksums"], &*position["wal_segment_bytes"]), ("false", "1048576"));
    let expected = sums(&cluster);
    let restored = setup.restore(&report).await;
    assert!(String::from_utf8(read(restored.data.join("backup_manifest"))).unwrap().contains("\"SHA256\""));
    restored.verify(&cluster);
    let (server, _files) = restored.start(&cluster);
    assert_eq!(sums(&server), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_alone_is_enough_to_start() {
    let cluster: Cluster = Cluster::builder().config("archive_mode = on").make();
    let archive = cluster.directory("archive");
    cluster.append_config(&format!("archive_command = 'cp %p {}/%f'", archive.display()));
    cluster.start();
    cluster.bench_init(1);
    let setup = Setup::new().await;
    let report = setup.backup(&local(&cluster).server_waits(true).build().unwrap()).await;
    let position = setup.position(&report).await;
    let last = archive.join(&position["stop_segment"]);
    assert!(last.exists(), "the server did not wait for {}", last.display());
    cluster.bench(2, 100);
    let expected = sums(&cluster);
    let segment = cluster.switch_wal();
    eventually("the last segment", || archive.join(&segment).exists().then_some(()));
    let restored = setup.restore(&report).await;
    fs::write(restored.data.join("recovery.signal"), "").unwrap();
    let line = format!("restore_command = 'cp {}/%f %p'\narchive_mode = off\n", archive.display());
    let conf = restored.data.join("postgresql.auto.conf");
    fs::write(&conf, [read(&conf), line.into_bytes()].concat()).unwrap();
    let (server, _files) = restored.start_with_own_log(&cluster);
    eventually("the end of recovery", || (server.sql("select pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(sums(&server), expected);
}

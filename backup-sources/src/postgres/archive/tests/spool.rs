//! Segments that were fetched ahead, and what became of them since.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;

/// An archive with segments, a spool in which those after the first are, and where a server wants them.
struct Ahead {
    archive: WalArchive,
    all: Vec<(SegmentName, Bytes)>,
    root: tempfile::TempDir,
}

impl Ahead {
    async fn new() -> Self {
        let archive = archive().await;
        let all = segments(4);
        for segment in &all {
            put(&archive, segment).await.unwrap();
        }
        let ahead = Self { archive, all, root: tempfile::tempdir().unwrap() };
        ahead.fetch(0).await;
        assert_eq!(ahead.spooled().len(), 3);
        ahead
    }

    fn destination(&self) -> PathBuf {
        self.root.path().join("RECOVERYXLOG")
    }

    async fn fetch(&self, index: usize) {
        let spool = Spool::at(self.root.path().join("spool"), 3);
        let (file, job) = (WalFile::Segment(self.all[index].0), job());
        let fetched = spool.fetch(&self.archive, file, &self.destination(), &job).await.unwrap();
        assert_eq!(fetched, Fetched::Found(self.all[index].1.clone()));
        assert_eq!(fs::read(self.destination()).unwrap(), self.all[index].1);
    }

    fn spooled(&self) -> Vec<PathBuf> {
        let system = self.root.path().join("spool").join(self.archive.places()[0].id().to_string());
        let entries = fs::read_dir(system.join(SYSTEM.to_string())).unwrap();
        let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn trap_26_what_was_damaged_in_a_spool_is_never_given_to_a_server() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 6] = [
        |bytes| bytes[500_000] ^= 1,
        |bytes| bytes[0] ^= 1,
        |bytes| bytes.truncate(700_000),
        Vec::clear,
        |bytes| bytes.push(0),
        |bytes| bytes[8192..].fill(0),
    ];
    for damage in damages {
        let ahead = Ahead::new().await;
        let second = ahead.spooled().remove(0);
        rewrite(&second, damage);
        ahead.fetch(1).await;
        // What the archive has came there instead, and is good; the next is as it was put there.
        ahead.fetch(2).await;
    }
}

#[tokio::test]
async fn trap_26_what_somebody_else_put_into_a_spool_is_not_given_either() {
    let ahead = Ahead::new().await;
    let (second, third) = (ahead.spooled().remove(0), ahead.spooled().remove(1));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let (of_second, of_third) = (name(&second), name(&third));
    let hash = of_third.split_once('.').unwrap().1;
    // The third under the second's name, with its own hash.
    fs::rename(&third, second.with_file_name(format!("{}.{hash}", of_second.split_once('.').unwrap().0)))
        .unwrap();
    fs::remove_file(&second).unwrap();
    ahead.fetch(1).await;
    // And it is only taken for the cluster and the repository that it was fetched from.
    let other = WalArchive::new(vec![place().await]).unwrap();
    let mut made = Made::new(3, size());
    made.commit(9999, 1);
    made.load();
    let theirs = made.segments().remove(0);
    put(&other, &theirs).await.unwrap();
    put(&ahead.archive, &ahead.all[0]).await.unwrap();
    ahead.fetch(0).await;
    let spool = Spool::at(ahead.root.path().join("spool"), 3);
    let file = WalFile::Segment(theirs.0);
    let fetched = spool.fetch(&other, file, &ahead.destination(), &job()).await.unwrap();
    assert_eq!(fetched, Fetched::Found(theirs.1));
}

#[tokio::test]
async fn what_a_killed_fetch_has_left_is_removed_and_nothing_else() {
    let ahead = Ahead::new().await;
    let beside = |name: &str| ahead.root.path().join(name);
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let left = beside(&format!("RECOVERYXLOG.{}.part", gone.id()));
    let kept = [
        beside(&format!("RECOVERYXLOG.{}.part", std::os::unix::process::parent_id())),
        beside(&format!("RECOVERYHISTORY.{}.part", gone.id())),
        beside("RECOVERYXLOG.part"),
        beside(&format!("RECOVERYXLOG.{}", gone.id())),
    ];
    for path in kept.iter().chain([&left]) {
        fs::write(path, "half").unwrap();
    }
    ahead.fetch(1).await;
    assert!(!left.exists());
    for path in kept {
        assert!(path.exists(), "{}", path.display());
    }
}

#[tokio::test]
async fn trap_26_what_others_can_have_put_into_a_spool_is_not_given_to_a_server() {
    type Plant = fn(&Path, &Path, &[u8]);
    let linked: Plant = |root, spooled, forged| {
        let elsewhere = root.join("forged");
        fs::write(&elsewhere, forged).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, spooled).unwrap();
    };
    let writable: Plant = |_, spooled, forged| {
        fs::write(spooled, forged).unwrap();
        fs::set_permissions(spooled, fs::Permissions::from_mode(0o666)).unwrap();
    };
    for plant in [linked, writable] {
        let ahead = Ahead::new().await;
        let second = ahead.spooled().remove(0);
        fs::remove_file(&second).unwrap();
        // A segment of this cluster with another record in it, under the name that its hash gives it.
        let mut forged = ahead.all[1].1.to_vec();
        forged[500_000] ^= 1;
        let hash: String = Sha256::digest(&forged).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}.{}", ahead.all[1].0, &hash[..32]);
        plant(ahead.root.path(), &second.with_file_name(name), &forged);
        ahead.fetch(1).await;
    }
}

#[tokio::test]
async fn a_process_that_has_seen_no_segment_yet_knows_which_come_next() {
    let mut made = Made::new(0xFE, size());
    for number in 0..4 {
        made.commit(700 + number, i64::from(number));
        made.load();
    }
    let all: Vec<_> = made.segments().into_iter().take(4).collect();
    let archive = archive().await;
    for segment in &all {
        put(&archive, segment).await.unwrap();
    }
    let fresh = WalArchive::new(archive.places().to_vec()).unwrap();
    assert_eq!(fresh.known_segment_size(), None);
    let ahead = Ahead { archive: fresh, all, root: tempfile::tempdir().unwrap() };
    ahead.fetch(0).await;
    // With segments of 16 MiB another name would follow after 255 of them.
    assert_eq!(ahead.spooled().len(), 3, "{:?}", ahead.spooled());
}

#[test]
fn what_is_fetched_ahead_is_bounded_in_bytes_whatever_the_size_of_segments() {
    use crate::postgres::archive::spool::bounds;
    let of = |mebibytes: u64, wanted| bounds(wanted, SegmentSize::new(mebibytes << 20).unwrap());
    for mebibytes in [1, 2, 16, 64, 128, 256, 512, 1024] {
        let (ahead, at_once) = of(mebibytes, 64);
        assert!((1..=64).contains(&ahead) && ahead as u64 * mebibytes <= 1024, "{mebibytes}: {ahead}");
        assert!(at_once == 1 || at_once as u64 * mebibytes <= 128, "{mebibytes}: {at_once}");
    }
    assert_eq!((of(16, 64), of(16, 3), of(1024, 64), of(16, 0)), ((64, 8), (3, 8), (1, 1), (0, 8)));
}

#[tokio::test]
async fn what_nobody_asked_for_is_bounded_in_bytes_and_what_was_put_there_first_goes() {
    let ahead = Ahead::new().await;
    let directory = ahead.spooled()[0].parent().unwrap().to_owned();
    let name = |number: u64| SegmentName::numbered(Timeline::FIRST, number, size());
    // Of the log that a server replayed before it began again further back: as long as it can be, without taking up a disk.
    let left: Vec<PathBuf> = (900..903)
        .map(|number| {
            let path = directory.join(format!("{}.{number:032}", name(number)));
            let file = fs::File::create(&path).unwrap();
            file.set_len(1 << 30).unwrap();
            let past = std::time::SystemTime::now() - std::time::Duration::from_secs(2000 - number);
            file.set_modified(past).unwrap();
            path
        })
        .collect();
    for path in ahead.spooled().iter().filter(|path| !left.contains(path)) {
        fs::remove_file(path).unwrap();
    }
    ahead.fetch(0).await;
    let spooled = ahead.spooled();
    let bytes: u64 = spooled.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= 2 << 30, "{bytes} bytes in {spooled:?}");
    assert_eq!(spooled.len(), 4, "those that come next stay: {spooled:?}");
    assert!(left[2].exists() && !left[0].exists() && !left[1].exists(), "{spooled:?}");
    (1..4).for_each(|number| {
        assert!(spooled[number - 1].to_str().unwrap().contains(&ahead.all[number].0.to_string()))
    });
}

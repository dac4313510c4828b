//! Consistent views: files are read as they were when the run began, and nothing of a view is left behind.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Entry, ErrorKind, Item, JobContext, Source, SourceRun};
use backup_sources::FilesSource;
use backup_sources::view::{BtrfsView, LvmView, ReflinkView, View, ZfsView};
use common::{content_attributes, is_root, read, settle};

fn sh(script: &str) -> String {
    let done = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A file system in a file, mounted while this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// A btrfs with a subvolume `data`.
    fn btrfs() -> Option<Self> {
        let mounted = Self::mount("mkfs.btrfs", "-q", "btrfs-progs")?;
        sh(&format!("btrfs subvolume create {}", mounted.path("data").display()));
        Some(mounted)
    }

    /// An xfs whose files can share blocks, with a directory `data`.
    fn xfs() -> Option<Self> {
        let mounted = Self::mount("mkfs.xfs", "-q -m reflink=1", "xfsprogs")?;
        fs::create_dir(mounted.path("data")).unwrap();
        Some(mounted)
    }

    fn mount(make: &str, options: &str, package: &str) -> Option<Self> {
        if !is_root() {
            println!("NOT TESTED: mounting needs root");
            return None;
        }
        let made = Command::new(make).arg("-V").output();
        made.unwrap_or_else(|e| panic!("{make} must be installed (apt-get install {package}): {e}"));
        let mounted = Self(tempfile::tempdir().unwrap());
        let at = mounted.0.path().display();
        sh(&format!("truncate -s 512M {at}/image; {make} {options} {at}/image; mkdir {at}/mnt"));
        let mount = Command::new("mount")
            .args(["-o", "loop"])
            .arg(mounted.0.path().join("image"))
            .arg(mounted.path(""))
            .output();
        let mount = mount.unwrap();
        if !mount.status.success() {
            println!("NOT TESTED: nothing can be mounted here: {}", String::from_utf8_lossy(&mount.stderr));
            return None;
        }
        Some(mounted)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("mnt").join(name)
    }

    /// What stands in a directory, hidden names included.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path().join("mnt")).output();
    }
}

async fn entries(run: &mut dyn SourceRun) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let items = run.next(100).await.unwrap();
        if items.is_empty() {
            return entries;
        }
        entries.extend(items.into_iter().map(|item| match item {
            Item::Entry(entry) => entry,
            Item::Skipped(skipped) => panic!("{skipped:?}"),
        }));
    }
}

/// The entry of a path, and its content.
async fn content(run: &dyn SourceRun, entries: &[Entry], path: &Path) -> Vec<u8> {
    let name = path.strip_prefix("/").unwrap().to_str().unwrap();
    let entry = entries.iter().find(|entry| entry.name.to_string() == name);
    let entry = entry.unwrap_or_else(|| panic!("no {name} in {entries:?}"));
    read(run.open(entry).await.unwrap()).await.unwrap().0
}

fn write_tree(data: &Path) {
    fs::create_dir_all(data.join("deep")).unwrap();
    fs::write(data.join("a"), "as it was").unwrap();
    fs::write(data.join("deep/b"), "also").unwrap();
    let set =
        rustix::fs::setxattr(data.join("deep/b"), "user.comment", b"kept", rustix::fs::XattrFlags::empty());
    set.unwrap();
}

#[tokio::test]
async fn a_btrfs_snapshot_shows_one_moment_under_the_names_of_the_living() {
    let Some(btrfs) = Mounted::btrfs() else { return };
    let data = btrfs.path("data");
    write_tree(&data);
    settle();
    let sources = [
        FilesSource::builder().path(&data).view(BtrfsView::new(&data)),
        FilesSource::builder().path(&data).view(BtrfsView::new(&data).views_in(btrfs.path(""))),
        FilesSource::builder().path(data.join("deep")).path(data.join("a")).view(BtrfsView::new(&data)),
    ];
    let mut all = Vec::new();
    for source in sources {
        let mut run = source.build().unwrap().begin(&JobContext::new()).await.unwrap();
        fs::write(data.join("a"), "changed after the run began").unwrap();
        fs::remove_file(data.join("deep/b")).unwrap();
        fs::write(data.join("deep/new"), "").unwrap();
        let entries = entries(&mut *run).await;
        assert_eq!(content(&*run, &entries, &data.join("a")).await, b"as it was");
        assert_eq!(content(&*run, &entries, &data.join("deep/b")).await, b"also");
        let b = entries.iter().find(|entry| entry.name.file_name() == b"b").unwrap();
        let attributes = content_attributes(run.open(b).await.unwrap());
        assert!(
            attributes.iter().any(|a| &*a.name == b"xattr:user.comment" && &*a.value == b"kept"),
            "{attributes:?}"
        );
        let names = entries.iter().map(|entry| entry.name.to_string());
        assert!(
            names.clone().all(|name| !name.contains("backup-view") && !name.ends_with("new")),
            "{entries:?}"
        );
        assert!(names.clone().any(|name| name == data.strip_prefix("/").unwrap().to_str().unwrap()));
        let finished = run.finish().await.unwrap();
        assert_eq!(finished.skipped, []);
        all.push(entries);
        assert_eq!(btrfs.names(""), ["data"]);
        fs::remove_file(data.join("deep/new")).unwrap();
        write_tree(&data);
        assert_eq!(btrfs.names("data"), ["a", "deep"], "nothing is left behind");
        settle();
    }
    // What is not changed between two views has one stamp.
    let source = FilesSource::builder().path(&data).view(BtrfsView::new(&data)).build().unwrap();
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let entries = entries(&mut *run).await;
        stamps.push(entries.into_iter().filter_map(|entry| entry.stamp).collect::<Vec<_>>());
        drop(run);
        assert_eq!(btrfs.names("data"), ["a", "deep"], "also when a run is abandoned");
    }
    assert!(stamps[0].len() == 2 && stamps[0] == stamps[1], "{stamps:?}");
}

#[tokio::test]
async fn what_a_killed_backup_left_behind_is_given_up_by_the_next() {
    let Some(btrfs) = Mounted::btrfs() else { return };
    let data = btrfs.path("data");
    write_tree(&data);
    // A process of this program takes a view and is killed.
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "take_a_view_and_be_killed"])
        .env("VIEW", &data)
        .output()
        .unwrap();
    assert!(!killed.status.success());
    let left: Vec<String> =
        btrfs.names("data").into_iter().filter(|name| name.starts_with(".backup-view-")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // One that belongs to a process that lives, this one, and one that only looks similar.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap()[..8].to_owned();
    let living = format!(".backup-view-{boot}-{}-{start}-999", std::process::id());
    for name in [living.as_str(), ".backup-view-of-mine"] {
        sh(&format!("btrfs subvolume snapshot -r {0} {0}/{name}", data.display()));
    }
    let source = FilesSource::builder().path(&data).view(BtrfsView::new(&data)).build().unwrap();
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let entries = entries(&mut *run).await;
    assert!(!entries.iter().any(|entry| entry.name.to_string().contains("backup-view")));
    assert_eq!(run.finish().await.unwrap().skipped, []);
    assert_eq!(btrfs.names("data"), [&living, ".backup-view-of-mine", "a", "deep"]);
}

#[tokio::test]
#[ignore = "part of another test"]
async fn take_a_view_and_be_killed() {
    let data = std::env::var("VIEW").unwrap();
    let source = FilesSource::builder().path(&data).view(BtrfsView::new(&data)).build().unwrap();
    let _run = source.begin(&JobContext::new()).await.unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn copies_that_share_blocks_freeze_each_file() {
    for mounted in [Mounted::btrfs(), Mounted::xfs()] {
        let Some(mounted) = mounted else { continue };
        let data = mounted.path("data");
        write_tree(&data);
        // More than is free: it is not copied.
        let half = vec![7; 4 << 20];
        let mut large = fs::File::create(data.join("large")).unwrap();
        (0..70).for_each(|_| std::io::Write::write_all(&mut large, &half).unwrap());
        large.sync_all().unwrap();
        let view = ReflinkView::new(&data, mounted.path(""));
        let source = FilesSource::builder().path(&data).view(view).build().unwrap();
        let before = mounted.names("");
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        fs::write(data.join("a"), "changed").unwrap();
        std::os::unix::fs::FileExt::write_all_at(&large, b"changed", 100_000_000).unwrap();
        let entries = entries(&mut *run).await;
        assert_eq!(content(&*run, &entries, &data.join("a")).await, b"as it was");
        let frozen = content(&*run, &entries, &data.join("large")).await;
        assert!(frozen.len() == 70 * half.len() && frozen.iter().all(|byte| *byte == 7));
        assert_eq!(run.finish().await.unwrap().skipped, []);
        assert_eq!(mounted.names(""), before);
    }
}

#[tokio::test]
async fn paths_outside_the_view_are_refused_and_the_view_is_given_up() {
    let Some(btrfs) = Mounted::btrfs() else { return };
    let data = btrfs.path("data");
    write_tree(&data);
    let source = FilesSource::builder().path(&data).path("/etc").view(BtrfsView::new(&data)).build().unwrap();
    let error = source.begin(&JobContext::new()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("/etc"), "{error}");
    assert_eq!(btrfs.names("data"), ["a", "deep"]);
    // What is no subvolume cannot be frozen.
    let no_subvolume = FilesSource::builder().path(data.join("deep")).view(BtrfsView::new(data.join("deep")));
    let error = no_subvolume.build().unwrap().begin(&JobContext::new()).await.err().unwrap();
    assert!(error.to_string().contains("btrfs"), "{error}");
}

/// A directory of commands that stand in for those of a volume manager, which write down how they were called.
fn stand_ins(scratch: &Path, commands: &[(&str, &str)]) -> PathBuf {
    let directory = scratch.join("commands");
    fs::create_dir(&directory).unwrap();
    for (name, script) in commands {
        let script = format!(
            "#!/bin/sh\nset -eu\ncd '{}'\necho {name} \"$@\" >> calls\n{script}\n",
            scratch.display()
        );
        // By another process: what this one has open for writing cannot be executed (ETXTBSY, execve(2)).
        let written = Command::new("sh")
            .args(["-euc", "printf %s \"$1\" > \"$2\"; chmod +x \"$2\"", "sh", &script])
            .arg(directory.join(name))
            .status();
        assert!(written.unwrap().success());
    }
    directory
}

fn calls(scratch: &Path) -> String {
    fs::read_to_string(scratch.join("calls")).unwrap()
}

/// Backs up through a view, with a change after the run began; the name of the view.
async fn frozen(source: &FilesSource, data: &Path) {
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    fs::write(data.join("a"), "changed").unwrap();
    let entries = entries(&mut *run).await;
    assert_eq!(content(&*run, &entries, &data.join("a")).await, b"as it was");
    assert_eq!(run.finish().await.unwrap().skipped, []);
}

#[tokio::test]
async fn zfs_snapshots_are_taken_read_and_destroyed() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    fs::create_dir_all(data.join(".zfs/snapshot/backup-view-00000000-1-1-1")).unwrap();
    fs::write(data.join("a"), "as it was").unwrap();
    let zfs = r#"
snapshots=data/.zfs/snapshot
case $1 in
snapshot) mkdir $snapshots/"${2#pool/data@}"; cp -p data/a $snapshots/"${2#pool/data@}";;
destroy) case $2 in pool/data@*) rm -r $snapshots/"${2#pool/data@}";; *) exit 1;; esac;;
list) ls $snapshots | sed 's,^,pool/data@,'; echo pool/data@daily;;
esac"#;
    let commands = stand_ins(scratch.path(), &[("zfs", zfs)]);
    let view = ZfsView::new("pool/data", &data).commands_in(&commands);
    let source = FilesSource::builder().path(data.join("a")).view(view.clone()).build().unwrap();
    frozen(&source, &data).await;
    assert_eq!(view.list().unwrap(), Vec::<String>::new());
    let calls = calls(scratch.path());
    assert!(calls.contains("zfs destroy pool/data@backup-view-00000000-1-1-1"), "left behind: {calls}");
    assert!(calls.contains("zfs snapshot pool/data@backup-view-") && !calls.contains("daily"), "{calls}");
}

#[tokio::test]
async fn lvm_snapshots_are_taken_mounted_read_and_removed() {
    if !is_root() {
        println!("not tested: mounting needs root");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    fs::create_dir_all(&data).unwrap();
    fs::create_dir(scratch.path().join("mounts")).unwrap();
    fs::create_dir(scratch.path().join("volumes")).unwrap();
    fs::write(data.join("a"), "as it was").unwrap();
    fs::write(scratch.path().join("volumes/backup-view-00000000-1-1-1"), "").unwrap();
    let commands = stand_ins(
        scratch.path(),
        &[
            ("lvcreate", "[ \"$8\" = group/volume ]; cp -p data/a volumes/\"$6\""),
            ("lvs", "ls volumes | sed 's/^/  /'; echo '  backup-viewer'"),
            ("lvremove", "rm volumes/\"${3#group/}\""),
            (
                "mount",
                "[ \"$2\" = ro,nouuid ]; /bin/mount -t tmpfs none \"$5\"; cp -p volumes/\"${4##*/}\" \"$5\"/a",
            ),
            ("umount", "/bin/umount \"$2\""),
        ],
    );
    let view = LvmView::new("group", "volume", &data)
        .mount_options("nouuid")
        .mounts_in(scratch.path().join("mounts"))
        .commands_in(&commands);
    let source = FilesSource::builder().path(&data).view(view).build().unwrap();
    frozen(&source, &data).await;
    let calls = calls(scratch.path());
    assert_eq!(fs::read_dir(scratch.path().join("volumes")).unwrap().count(), 0, "{calls}");
    assert_eq!(fs::read_dir(scratch.path().join("mounts")).unwrap().count(), 0, "{calls}");
    // A run that is dropped in the middle lets go of what it reads, and then of the view.
    fs::write(data.join("a"), "as it was").unwrap();
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    assert!(!run.next(1).await.unwrap().is_empty());
    drop(run);
    assert_eq!(fs::read_dir(scratch.path().join("mounts")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(scratch.path().join("volumes")).unwrap().count(), 0);
}

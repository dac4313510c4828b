//! What the tests of sources and targets share: a copy from one to the other, and a picture of a tree.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use backup_core::source::ContentReader;
use backup_core::{Entry, EntryKind, Item, JobContext, Skipped, Source, Target, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a copy did.
#[derive(Debug, Default)]
pub struct Copied {
    pub entries: Vec<Entry>,
    pub skipped: Vec<Skipped>,
    pub owners: backup_core::OwnerNames,
    pub current: usize,
    pub bytes_written: u64,
}

impl Copied {
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.name.to_string()).collect()
    }

    pub fn entry(&self, name: &str) -> &Entry {
        self.entries
            .iter()
            .find(|entry| entry.name.as_bytes() == name.as_bytes())
            .unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn reason(&self, name: &str) -> &str {
        let skipped = self.skipped.iter().find(|skipped| skipped.name == name);
        &skipped.unwrap_or_else(|| panic!("{name} was not skipped: {:?}", self.skipped)).reason
    }
}

/// All items of a source.
pub async fn walk(source: &dyn Source) -> Copied {
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let mut copied = Copied::default();
    loop {
        let items = run.next(100).await.unwrap();
        if items.is_empty() {
            break;
        }
        assert!(items.len() <= 100);
        for item in items {
            match item {
                Item::Entry(entry) => copied.entries.push(entry),
                Item::Skipped(skipped) => copied.skipped.push(skipped),
            }
        }
    }
    let sorted = copied.entries.windows(2).all(|pair| pair[0].name < pair[1].name);
    assert!(sorted, "names out of order: {:?}", copied.names());
    let finished = run.finish().await.unwrap();
    copied.skipped.extend(finished.skipped);
    copied.owners = finished.owners;
    copied
}

/// Everything of `source` into `target`, closures in reverse order where the target permits any.
pub async fn copy(source: &dyn Source, target: &dyn Target) -> Copied {
    let job = JobContext::new();
    let mut copied = walk(source).await;
    let mut run = source.begin(&job).await.unwrap();
    while !run.next(1000).await.unwrap().is_empty() {}
    for entry in copied.entries.iter_mut().filter(|entry| entry.kind.has_content()) {
        let Ok(content) = run.open(entry).await else { continue };
        entry.attributes.splice(0..0, content_attributes(content));
    }
    target.owner_names(&copied.owners);
    target.begin(&job).await.unwrap();
    let mut writers = Vec::new();
    for entry in &copied.entries {
        let writer = target.entry(entry).await.unwrap();
        if let Writer::Async(mut writer) = writer {
            if entry.kind.has_content() {
                let content = read(run.open(entry).await.unwrap()).await.unwrap().0;
                writer.write_all(&content).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        } else {
            writers.push((entry.clone(), writer));
        }
    }
    for (entry, writer) in writers.into_iter().rev() {
        let Writer::Blocking(open) = writer else { continue };
        let failed = |error: std::io::Error| Skipped::new(&entry.name, error);
        let writer = match open() {
            Ok(writer) => writer,
            Err(error) => {
                copied.skipped.push(failed(error));
                continue;
            }
        };
        if writer.is_current() {
            copied.current += 1;
            writer.finish(entry.size.unwrap_or(0)).unwrap();
            continue;
        }
        let mut len = 0;
        if entry.kind.has_content() {
            let (content, notice) = match read(run.open(&entry).await.unwrap()).await {
                Ok(read) => read,
                Err(error) => {
                    copied.skipped.push(failed(error));
                    writer.abort();
                    continue;
                }
            };
            copied.skipped.extend(notice.map(|notice| Skipped::new(&entry.name, notice)));
            len = content.len() as u64;
            for (at, piece) in content.chunks(10_000).enumerate() {
                let offset = at as u64 * 10_000;
                let mut there = vec![0; piece.len()];
                let equal = offset + piece.len() as u64 <= writer.existing_len()
                    && writer.read_exact_at(&mut there, offset).is_ok()
                    && there == piece;
                if !equal {
                    writer.write_all_at(piece, offset).unwrap();
                    copied.bytes_written += piece.len() as u64;
                }
            }
        }
        match writer.finish(len) {
            Ok(notes) => copied.skipped.extend(notes.into_iter().map(|note| Skipped::new(&entry.name, note))),
            Err(error) => copied.skipped.push(failed(error)),
        }
    }
    let links = copied.entries.iter().filter(|entry| matches!(entry.kind, EntryKind::HardLink { .. }));
    let last: Vec<_> = links.cloned().collect();
    copied.skipped.extend(target.complete(last).await.unwrap());
    let directories = copied.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Directory);
    let last: Vec<_> = directories.cloned().collect();
    copied.skipped.extend(target.complete(last).await.unwrap());
    copied.skipped.extend(target.finish().await.unwrap());
    copied
}

/// What open content knows of its entry.
pub fn content_attributes(content: backup_core::Content) -> Vec<backup_core::Attribute> {
    match content.reader {
        ContentReader::Blocking(open) => open().map(|mut reader| reader.attributes()).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The inode flags of a file or directory that users may set; none where there are none.
pub fn flags(path: &Path) -> u32 {
    let Ok(file) = fs::File::open(path) else { return 0 };
    rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits() & 0x6283_c4ff)
}

/// Sets inode flags; false where that is not possible.
pub fn set_flags(path: &Path, flags: u32) -> bool {
    let file = fs::File::open(path).unwrap();
    let Ok(before) = rustix::fs::ioctl_getflags(&file) else { return false };
    let flags = rustix::fs::IFlags::from_bits_retain(before.bits() | flags);
    rustix::fs::ioctl_setflags(&file, flags).is_ok()
}

/// Takes away, when it is dropped, what would keep a tree from being deleted.
pub struct Unlocked<'a>(pub &'a Path);

impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        let mut paths = vec![self.0.to_owned()];
        while let Some(path) = paths.pop() {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if !meta.is_dir() && !meta.is_file() {
                continue;
            }
            if let Ok(file) = fs::File::open(&path)
                && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
            {
                let _ = rustix::fs::ioctl_setflags(
                    &file,
                    rustix::fs::IFlags::from_bits_retain(flags.bits() & !0x30),
                );
            }
            if meta.is_dir()
                && let Ok(entries) = fs::read_dir(&path)
            {
                paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
            }
        }
    }
}

/// Reads content to its end, with the notice of what happened to it meanwhile.
pub async fn read(content: backup_core::Content) -> std::io::Result<(Vec<u8>, Option<String>)> {
    let mut bytes = Vec::new();
    match content.reader {
        ContentReader::Blocking(open) => {
            let mut reader = open()?;
            let mut buffer = vec![0; 7000];
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok((bytes, reader.finish())),
                    len => bytes.extend_from_slice(&buffer[..len]),
                }
            }
        }
        ContentReader::Async(mut reader) => {
            reader.read_to_end(&mut bytes).await?;
            Ok((bytes, None))
        }
        ContentReader::Random(content) => {
            bytes.resize(usize::try_from(content.len()).unwrap(), 0);
            content.read_exact_at(&mut bytes, 0)?;
            Ok((bytes, None))
        }
    }
}

/// Everything that can be seen of a tree without the code under test, by path.
pub fn picture(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut picture = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = paths.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push(path);
    }
    all.sort();
    for path in all {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut line = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        if !name.is_empty() {
            line += &format!(" {}.{:09}", meta.mtime(), meta.mtime_nsec());
        }
        if kind.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            let sum =
                content.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            line += &format!(" {} bytes {sum:x}", content.len());
        } else if kind.is_block_device() || kind.is_char_device() {
            line += &format!(" device {}", meta.rdev());
        }
        if !kind.is_dir() {
            let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
            line += &format!(" same as {:?}", String::from_utf8_lossy(first));
        }
        if kind.is_dir() || kind.is_file() {
            line += &format!(" flags {:x}", flags(&path));
        }
        for (xattr, value) in xattrs(&path) {
            line += &format!(" {xattr}={value:?}");
        }
        picture.insert(name, line);
    }
    picture
}

pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut xattrs: Vec<_> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"))
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            value.truncate(len);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect();
    xattrs.sort();
    xattrs
}

pub fn set_time(path: &Path, seconds: i64, nanoseconds: u32) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Waits until what was written is too old to be taken for in the making.
pub fn settle() {
    let start = SystemTime::now();
    while start.elapsed().unwrap() < Duration::from_millis(40) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

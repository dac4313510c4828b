//! Everything that can be seen of a tree without the code under test, attribute by attribute.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

/// Attributes of one entry, by what they are called.
pub type Dumped = BTreeMap<String, String>;

/// Inode flags that a user may set; the others say how the file system keeps a file.
const FLAGS: u32 = 0x6283_c4ff;

/// All entries below `root`, and itself under an empty name.
pub fn dump(root: &Path) -> BTreeMap<PathBuf, Dumped> {
    let mut all = BTreeMap::new();
    let mut first_names: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let name = path.strip_prefix(root).unwrap().to_owned();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let mut dumped = Dumped::new();
        let mut put = |key: &str, value: String| assert!(dumped.insert(key.to_owned(), value).is_none());
        put("kind", format!("{:o}", meta.mode() & 0o170_000));
        put("mode", format!("{:o}", meta.mode() & 0o7777));
        put("uid", meta.uid().to_string());
        put("gid", meta.gid().to_string());
        put("time", format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
        if kind.is_char_device() || kind.is_block_device() {
            put("device", meta.rdev().to_string());
        }
        if kind.is_symlink() {
            put("target", hex::encode(fs::read_link(&path).unwrap().as_os_str().as_bytes()));
        }
        if kind.is_file() {
            put("size", meta.size().to_string());
            put("content", blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string());
            put("data", format!("{:?}", data(&path, meta.size())));
        }
        if kind.is_file() || kind.is_dir() {
            let file = fs::File::open(&path).unwrap();
            if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
                put("flags", format!("{:x}", flags.bits() & FLAGS));
            }
        }
        if !kind.is_dir() {
            put("names", meta.nlink().to_string());
            first_names
                .entry((meta.dev(), meta.ino()))
                .and_modify(|first| *first = name.clone().min(first.clone()))
                .or_insert_with(|| name.clone());
        }
        for xattr in xattr::list(&path).unwrap() {
            let value = xattr::get(&path, &xattr).unwrap().unwrap_or_default();
            put(&xattr.to_string_lossy(), hex::encode(value));
        }
        all.insert(name, dumped);
    }
    // Which names are one inode, told by the first of them.
    for (name, dumped) in &mut all {
        let meta = fs::symlink_metadata(root.join(name)).unwrap();
        if let Some(first) = first_names.get(&(meta.dev(), meta.ino())) {
            dumped.insert("inode of".into(), first.to_string_lossy().into_owned());
        }
    }
    all
}

/// Where a file has data, and no holes.
fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = fs::File::open(path).unwrap();
    let mut data = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        data.push((start, end));
        at = end;
    }
    data
}

/// Takes away, when it is dropped, the flags that would keep a tree from being deleted.
pub struct Unlocked(pub PathBuf);

impl Drop for Unlocked {
    fn drop(&mut self) {
        let mut open = vec![self.0.clone()];
        while let Some(path) = open.pop() {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if (meta.is_dir() || meta.is_file())
                && let Ok(file) = fs::File::open(&path)
                && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
                && flags.bits() & 0x30 != 0
            {
                let flags = rustix::fs::IFlags::from_bits_retain(flags.bits() & !0x30);
                let _ = rustix::fs::ioctl_setflags(&file, flags);
            }
            if meta.is_dir()
                && let Ok(entries) = fs::read_dir(&path)
            {
                open.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
            }
        }
    }
}

/// A name in a report, which is text, of a name of bytes.
pub fn reported(name: &Path) -> String {
    String::from_utf8_lossy(&OsString::from(name).into_vec()).into_owned()
}

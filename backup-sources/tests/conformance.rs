//! The suites that every source and target must pass, over those of this crate.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use backup_core::testing::{source, target};
use backup_core::{Entry, EntryName};
use backup_sources::{CommandSource, DirectoryTarget, FilesSource, MemorySource, ReaderSource, TarTarget};

#[tokio::test]
async fn sources_keep_their_contract() {
    let scratch = tempfile::tempdir().unwrap();
    for number in 0..700 {
        let directory = scratch.path().join(format!("dir-{}", number % 7));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), vec![b'x'; number * 10]).unwrap();
    }
    fs::hard_link(scratch.path().join("dir-0/0"), scratch.path().join("link")).unwrap();
    source::conformance(&FilesSource::new(scratch.path()).unwrap()).await.unwrap();
    source::conformance(&FilesSource::builder().path("/etc").build().unwrap()).await.unwrap();
    let memory = MemorySource::new("x").with_file("a/b", "content").unwrap();
    source::conformance(&memory.with_entry(Entry::directory("a").unwrap(), "")).await.unwrap();
    source::conformance(&CommandSource::new("dump", ["seq", "100000"]).unwrap()).await.unwrap();
    source::conformance(&ReaderSource::new("notes", &b"text"[..]).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_keep_their_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let read_back = || async { Ok(files(&root, &root)) };
    target::conformance(&DirectoryTarget::new(&root), read_back).await.unwrap();

    let archive = scratch.path().join("archive.tar");
    let file = tokio::fs::File::create(&archive).await.unwrap();
    let extracted = scratch.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    let read_back = || async {
        let status =
            std::process::Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&extracted).status();
        assert!(status.unwrap().success());
        Ok(files(&extracted, &extracted))
    };
    target::conformance(&TarTarget::new(file), read_back).await.unwrap();
}

fn files(root: &Path, at: &Path) -> BTreeMap<EntryName, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(root, &path));
        } else {
            let mut content = Vec::new();
            fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_encoded_bytes();
            all.insert(EntryName::new(name).unwrap(), content);
        }
    }
    all
}

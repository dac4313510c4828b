//! A repository with a history: a tree that changes, the snapshots that were acknowledged, and what they must hold.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Ran, Scratch};

/// What a tree holds: of each name its kind, mode, time, and the hash of its content or its target.
pub(crate) type Digest = BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)>;

/// Numbers that look random, the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
        bytes
    }
}

pub(crate) struct Story {
    pub(crate) scratch: Scratch,
    random: Random,
    /// Real bytes, of many kinds: this very program.
    real: Vec<u8>,
    pub(crate) acknowledged: BTreeMap<String, Digest>,
}

impl Story {
    /// A tree and an empty repository.
    pub(crate) fn new(seed: u64) -> Self {
        let scratch = Scratch::with_repository();
        let real = fs::read(env!("CARGO_BIN_EXE_backup")).unwrap();
        let mut story = Self { scratch, random: Random(seed), real, acknowledged: BTreeMap::new() };
        for number in 0..40 {
            story.write_small(number);
        }
        story
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path("tree")
    }

    fn write_small(&mut self, number: u64) -> u64 {
        let len = usize::try_from(self.random.below(20_000)).unwrap();
        let start = usize::try_from(self.random.below((self.real.len() - len) as u64)).unwrap();
        let directory = self.tree().join(format!("small/{}", number % 7));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file-{number}")), &self.real[start..start + len]).unwrap();
        len as u64
    }

    /// Changes the tree: some small files, some gone, one renamed, and `big` new bytes that do not compress. Returns how
    /// many bytes were written.
    pub(crate) fn change(&mut self, big: usize) -> u64 {
        let mut written = 0;
        for _ in 0..5 {
            let number = self.random.below(60);
            written += self.write_small(number);
        }
        let gone = self.random.below(60);
        let _ = fs::remove_file(self.tree().join(format!("small/{}/file-{gone}", gone % 7)));
        let moved = self.random.below(60);
        let place = self.tree().join(format!("small/{}/file-{moved}", moved % 7));
        let _ = fs::rename(&place, place.with_extension("moved"));
        let bytes = self.random.bytes(big);
        fs::write(self.tree().join("big"), &bytes).unwrap();
        written + bytes.len() as u64
    }

    pub(crate) fn digest(&self) -> Digest {
        digest(&self.tree())
    }

    /// Records the snapshot if its report was printed, however the process ended.
    pub(crate) fn acknowledge(&mut self, out: &str) -> Option<Value> {
        let report: Value = serde_json::from_str(out).ok()?;
        let id = report.get("snapshot")?.as_str()?.to_owned();
        assert_eq!(report["outcome"], "complete", "{report:#}");
        let digest = self.digest();
        self.acknowledged.insert(id, digest);
        Some(report)
    }

    /// A run that must succeed; its report.
    pub(crate) fn create(&mut self) -> Value {
        let ran = self.scratch.run(["--json", "create", "files", "tree"]).expect(0);
        self.acknowledge(&ran.out).unwrap_or_else(|| panic!("no report: {ran:#?}"))
    }

    /// The snapshots there are; every acknowledged one must be among them.
    pub(crate) fn listed(&self) -> Vec<String> {
        let list = self.scratch.json(0, ["list"]);
        let ids = list["snapshots"].as_array().unwrap().iter();
        let ids: Vec<_> = ids.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect();
        for id in self.acknowledged.keys() {
            assert!(ids.contains(id), "the acknowledged snapshot {id} is lost; there are {ids:?}");
        }
        ids
    }

    /// Everything can be decrypted and is what its name says.
    pub(crate) fn verify(&self) -> Ran {
        self.scratch.ok(["verify", "--level", "content"])
    }

    pub(crate) fn restores(&self, id: &str) {
        self.restores_from("repository", id, id);
    }

    /// Restores from a repository what is there a snapshot, or a copy, of what was acknowledged as `original`.
    pub(crate) fn restores_from(&self, repository: &str, id: &str, original: &str) {
        let to = self.scratch.path("restored");
        self.scratch.json(0, ["--repo", repository, "restore", id, "--to", to.to_str().unwrap()]);
        let (found, expected) = (digest(&to.join("tree")), &self.acknowledged[original]);
        for (name, value) in expected {
            assert_eq!(found.get(name), Some(value), "{} of {id}", name.display());
        }
        assert_eq!(found.len(), expected.len(), "{id}: {:?}", found.keys());
        fs::remove_dir_all(to).unwrap();
    }

    pub(crate) fn restores_all(&self) {
        self.acknowledged.keys().for_each(|id| self.restores(id));
    }

    /// No temporary files of processes that are gone.
    pub(crate) fn assert_swept(&self) {
        self.assert_swept_in("repository");
    }

    pub(crate) fn assert_swept_in(&self, repository: &str) {
        let left = fs::read_dir(self.scratch.path(repository).join(".tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "temporary files stay behind");
    }

    /// The bytes in packs of content.
    pub(crate) fn bytes_in_packs(&self) -> u64 {
        let mut sum = 0;
        let mut open = vec![self.scratch.path("repository/data")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let entry = entry.unwrap();
                let there = entry.metadata().unwrap();
                if there.is_dir() { open.push(entry.path()) } else { sum += there.len() }
            }
        }
        sum
    }
}

pub(crate) fn digest(root: &Path) -> Digest {
    let mut all = Digest::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        let there = path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let content = if there.is_symlink() {
            path.read_link().unwrap().into_os_string().into_encoded_bytes()
        } else if there.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            blake3::hash(&fs::read(&path).unwrap()).as_bytes().to_vec()
        };
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        all.insert(name, (there.mode(), there.mtime(), there.mtime_nsec(), content));
    }
    all
}

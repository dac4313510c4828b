//! Which names a run has yielded, for the question whether a trailing name is new.
//!
//! The answer is needed once, at the end, when the pages that hold the names are on their way to the store. So hashes of
//! the names are kept: few in memory, many in a scratch file. The
//! hash has a key of this run's own, so nobody can make names that collide; that two of a billion names collide by chance
//! with one of a thousand trailing names happens once in ten million backups, and costs a refusal.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use crate::repository::scratch::ScratchFile;
use crate::{EntryName, Result};

/// Hashes held in memory: 8 MiB.
const HELD_MAX: usize = 1 << 20;
/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Names by their hash.
#[derive(Debug)]
pub(crate) struct SeenNames {
    key: RandomState,
    held: Vec<u64>,
    scratch: Arc<Path>,
    spilled: Option<ScratchFile>,
}

impl SeenNames {
    /// No names yet; many will go to a file in `scratch`.
    pub(crate) fn new(scratch: &Path) -> Self {
        Self { key: RandomState::default(), held: Vec::new(), scratch: scratch.into(), spilled: None }
    }

    /// Notes a name.
    pub(crate) fn push(&mut self, name: &EntryName) -> Result<()> {
        if self.held.len() >= HELD_MAX {
            let file = match &mut self.spilled {
                Some(file) => file,
                None => self.spilled.insert(ScratchFile::create(&self.scratch)?),
            };
            for hash in self.held.drain(..) {
                file.append(&hash.to_le_bytes())?;
            }
        }
        self.held.push(self.hash(name));
        Ok(())
    }

    /// What stands for a name here.
    pub(crate) fn hash(&self, name: &EntryName) -> u64 {
        self.key.hash_one(name.as_bytes())
    }

    /// Those of `hashes` whose names were noted. Asked once, after the last name.
    pub(crate) fn among(&mut self, hashes: &HashSet<u64>) -> Result<HashSet<u64>> {
        if hashes.is_empty() {
            return Ok(HashSet::new());
        }
        let mut found: HashSet<u64> =
            self.held.iter().filter(|hash| hashes.contains(hash)).copied().collect();
        if let Some(file) = self.spilled.take() {
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut at = 0;
            while at < file.len() {
                let left = usize::try_from(file.len().saturating_sub(at)).unwrap_or(usize::MAX);
                let part = buffer.get_mut(..left.min(BUFFER_BYTES)).unwrap_or_default();
                file.read_at(part, at)?;
                at = at.saturating_add(part.len() as u64);
                let (read, _) = part.as_chunks();
                found.extend(read.iter().filter_map(|hash| hashes.get(&u64::from_le_bytes(*hash))));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_again_also_from_the_temporary_file() {
        let name = |number: usize| EntryName::new(number.to_string()).unwrap();
        for count in [0, 10, HELD_MAX + 10, 2 * HELD_MAX + 1] {
            let mut names = SeenNames::new(&std::env::temp_dir());
            (0..count).for_each(|number| names.push(&name(number)).unwrap());
            assert_eq!(names.spilled.is_some(), count > HELD_MAX);
            let asked = [0, 9, HELD_MAX - 1, HELD_MAX, 2 * HELD_MAX, 3 * HELD_MAX];
            let hashes: HashSet<u64> = asked.iter().map(|number| names.hash(&name(*number))).collect();
            let expected: HashSet<u64> = asked
                .iter()
                .filter(|number| **number < count)
                .map(|number| names.hash(&name(*number)))
                .collect();
            assert_eq!(names.among(&hashes).unwrap(), expected);
            assert_eq!(names.among(&HashSet::new()).unwrap(), HashSet::new());
        }
    }

    #[test]
    fn the_scratch_directory_is_the_one_that_was_chosen() {
        let mut names = SeenNames::new(Path::new("/nonexistent/scratch"));
        let name = EntryName::new("a").unwrap();
        let error = (0..=HELD_MAX).find_map(|_| names.push(&name).err()).unwrap();
        assert!(error.to_string().contains("/nonexistent/scratch"), "{error}");
    }
}

//! Which names a run has yielded, for the question whether a trailing name is new.
//!
//! The answer is needed once, at the end, when the pages that hold the names are on their way to the store. So hashes of
//! the names are kept: few in memory, many in an unnamed temporary file, which the system removes with the process. The
//! hash has a key of this run's own, so nobody can make names that collide; that two of a billion names collide by chance
//! with one of a thousand trailing names happens once in ten million backups, and costs a refusal.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::{EntryName, Error, Result};

/// Hashes held in memory: 8 MiB.
const HELD_MAX: usize = 1 << 20;

/// Names by their hash.
#[derive(Debug, Default)]
pub(crate) struct SeenNames {
    key: RandomState,
    held: Vec<u64>,
    spilled: Option<BufWriter<File>>,
}

impl SeenNames {
    /// Notes a name.
    pub(crate) fn push(&mut self, name: &EntryName) -> Result<()> {
        if self.held.len() >= HELD_MAX {
            let file = match &mut self.spilled {
                Some(file) => file,
                None => self.spilled.insert(BufWriter::new(tempfile::tempfile().map_err(failed)?)),
            };
            for hash in self.held.drain(..) {
                file.write_all(&hash.to_le_bytes()).map_err(failed)?;
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
        if let Some(spilled) = self.spilled.take() {
            let mut file = spilled.into_inner().map_err(|error| failed(error.into_error()))?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            let mut file = BufReader::new(file);
            let mut hash = [0; 8];
            loop {
                match file.read_exact(&mut hash) {
                    Ok(()) => found.extend(hashes.get(&u64::from_le_bytes(hash))),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(found)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("the temporary file of the names that were yielded cannot be used", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_again_also_from_the_temporary_file() {
        let name = |number: usize| EntryName::new(number.to_string()).unwrap();
        for count in [0, 10, HELD_MAX + 10, 2 * HELD_MAX + 1] {
            let mut names = SeenNames::default();
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
}

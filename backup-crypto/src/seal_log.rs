//! Proof, in tests, that no key ever seals two things with one nonce. Built only with the feature `seal-log`.
//!
//! Every seal is recorded before it is made, whatever becomes of its object: a pack that is thrown away after an error
//! counts, too. A repeated pair of key and nonce is an error, which fails the job. If the environment variable
//! `BACKUP_SEAL_LOG` names a file, each record is also appended to it, so that all processes of a test run can be
//! checked together (`cargo run --example check_seal_log -- FILE`).
//!
//! A record is 44 bytes: SHA-256 of the key (32), then the nonce (12). Tests that seal must draw salts from the
//! system's randomness: two runs from one seed repeat their seals by design, and the log says so.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use backup_core::{Error, ErrorKind, Result};

/// Bytes of one record.
pub const RECORD_BYTES: usize = 44;

/// Seals that one process may record; beyond it sealing fails rather than taking more memory.
pub const RECORDS_MAX: usize = 1 << 24;

/// The environment variable that names the file records are appended to.
pub const FILE_VARIABLE: &str = "BACKUP_SEAL_LOG";

type Record = [u8; RECORD_BYTES];

static SEEN: Mutex<Option<HashSet<Record>>> = Mutex::new(None);
static FILE: OnceLock<Result<Option<File>, io::ErrorKind>> = OnceLock::new();

/// Records a seal that is about to be made, or says that it was made before.
pub(crate) fn record(key_digest: &[u8; 32], nonce: &[u8; 12]) -> Result<()> {
    let mut record = [0; RECORD_BYTES];
    let parts = key_digest.iter().chain(nonce);
    record.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seen = seen.get_or_insert_default();
    if seen.len() >= RECORDS_MAX {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "the seal log is full; run fewer tests in one process",
        ));
    }
    if !seen.insert(record) {
        return Err(Error::internal("a key was to seal two things with one nonce; nothing was sealed"));
    }
    append(&record)
}

fn append(record: &Record) -> Result<()> {
    let file = FILE.get_or_init(|| match std::env::var_os(FILE_VARIABLE) {
        None => Ok(None),
        Some(path) => open(Path::new(&path)).map(Some).map_err(|e| e.kind()),
    });
    let failed = |e| Error::io(format!("the seal log named by {FILE_VARIABLE} cannot be written"), e);
    match file {
        Ok(None) => Ok(()),
        // One write per record: appends of several processes do not mix.
        Ok(Some(file)) => match (&*file).write(record) {
            Ok(RECORD_BYTES) => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::WriteZero.into())),
            Err(e) => Err(failed(e)),
        },
        Err(kind) => Err(failed((*kind).into())),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_9_a_repeated_key_and_nonce_is_an_error_and_different_ones_are_not() {
        record(&[0xA1; 32], &[1; 12]).unwrap();
        record(&[0xA1; 32], &[2; 12]).unwrap();
        record(&[0xA2; 32], &[1; 12]).unwrap();
        let error = record(&[0xA1; 32], &[1; 12]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

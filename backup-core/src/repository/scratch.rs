//! Unnamed temporary files for what does not fit in memory: sorted runs, a spilled index.
//!
//! A scratch file has no name from the moment it is made (`O_TMPFILE` where the file system has it, otherwise created
//! with mode 0600 and unlinked at once), so the system removes it with the process, however that ends. Nothing in one is
//! content or a secret.
//!
//! Reads and writes are blocking calls. They are short, and what was written lately is still in the system's page cache;
//! so single lookups call them from async code, too, as one would touch memory that may be swapped. What walks a whole
//! file runs on a worker thread or through [`guard::blocking`](super::guard::blocking).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// A scratch file: written at its end, read anywhere.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    file: File,
    directory: Arc<Path>,
    written: u64,
    /// What comes behind `written`.
    buffer: Vec<u8>,
}

impl ScratchFile {
    /// An empty file in `directory`.
    pub(crate) fn create(directory: &Arc<Path>) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(|e| failed("made", directory, e))?;
        Ok(Self::of(file, directory))
    }

    fn of(file: File, directory: &Arc<Path>) -> Self {
        Self { file, directory: directory.clone(), written: 0, buffer: Vec::new() }
    }

    /// A file with the same bytes.
    pub(crate) fn copy(&self) -> Result<Self> {
        let mut copy = Self::create(&self.directory)?;
        let mut at = 0;
        let mut part = vec![0; BUFFER_BYTES];
        while at < self.len() {
            let len = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
            let part = part.get_mut(..len).unwrap_or_default();
            self.read_at(part, at)?;
            copy.append(part)?;
            at = at.saturating_add(len as u64);
        }
        Ok(copy)
    }

    /// Bytes appended so far.
    pub(crate) fn len(&self) -> u64 {
        self.written.saturating_add(self.buffer.len() as u64)
    }

    /// Writes behind what is there.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    /// Writes what is buffered and gives the buffer's memory back.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.write_out()?;
        self.buffer = Vec::new();
        Ok(())
    }

    /// Fills `bytes` from what was appended at `offset`.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let in_file = usize::try_from(self.written.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (from_file, from_buffer) = bytes.split_at_mut(in_file.min(bytes.len()));
        self.file.read_exact_at(from_file, offset).map_err(|e| failed("read", &self.directory, e))?;
        if from_buffer.is_empty() {
            return Ok(());
        }
        let start = usize::try_from(offset.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let there = self.buffer.get(start..start.saturating_add(from_buffer.len()));
        from_buffer.copy_from_slice(there.ok_or_else(|| Error::internal("a scratch file is too short"))?);
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|e| failed("written", &self.directory, e))?;
        self.written = self.len();
        self.buffer.clear();
        Ok(())
    }
}

// Of the kinds that an error has elsewhere only a full disk is told apart: a directory that is missing, or that refuses,
// says nothing about the objects of a repository.
fn failed(what: &str, directory: &Path, source: std::io::Error) -> Error {
    let message = format!(
        "a temporary file in {} cannot be {what}; make room there or choose another scratch directory",
        directory.display()
    );
    let error = Error::io(message, source);
    if error.kind() == ErrorKind::NoSpace { error } else { error.with_kind(ErrorKind::Io) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> Arc<Path> {
        std::env::temp_dir().into()
    }

    #[test]
    fn what_was_appended_is_read_wherever_it_stands() {
        let mut file = ScratchFile::create(&temporary()).unwrap();
        let bytes: Vec<u8> = (0..BUFFER_BYTES + 1000).map(|n| (n % 251) as u8).collect();
        file.append(&bytes).unwrap();
        file.append(b"in memory").unwrap();
        let mut part = [0; 13];
        file.read_at(&mut part, bytes.len() as u64 - 4).unwrap();
        assert_eq!(part[..4], bytes[bytes.len() - 4..]);
        assert_eq!(&part[4..], b"in memory");
        assert!(file.read_at(&mut part, bytes.len() as u64).is_err(), "beyond the end");
        let copy = file.copy().unwrap();
        assert_eq!(copy.len(), file.len());
        file.flush().unwrap();
        let mut whole = vec![0; bytes.len()];
        copy.read_at(&mut whole, 0).unwrap();
        assert_eq!(whole, bytes);
    }

    #[test]
    fn a_scratch_directory_that_does_not_serve_is_named() {
        for directory in ["/nonexistent/scratch", "/dev/null", "/proc"] {
            let error = ScratchFile::create(&Path::new(directory).into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains(directory), "{error}");
            assert!(error.to_string().contains("scratch directory"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_scratch_directory_is_said_to_be_full() {
        let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let mut file = ScratchFile::of(full, &Path::new("/dev/full").into());
        file.append(b"does not fit").unwrap();
        let error = file.flush().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().contains("make room"), "{error}");
    }
}

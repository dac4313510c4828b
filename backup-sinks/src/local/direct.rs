//! Long files written past the page cache.
//!
//! A pack is written once, synced at once, and seldom read soon. In the page cache it would take the place of what the
//! machine's services read, and the way through the cache is the dearer one: on a virtual machine whose pages the host has
//! yet to find, copying into it takes longer than everything else that a backup does with incompressible data.

use std::fs::File;
use std::io::{self, Write};

/// Shorter files go through the page cache: for them a system call more costs more than it spares.
const DIRECT_BYTES_MIN: usize = 1024 * 1024;

/// Appends all of `bytes` to a new file, past the page cache where they are many and the file system lets us.
pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let written = if bytes.len() < DIRECT_BYTES_MIN { 0 } else { blocks::write(file, bytes)? };
    file.write_all(bytes.get(written..).unwrap_or_default())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod blocks {
    use std::fs::File;
    use std::io::{self, Write};

    use rustix::fs::OFlags;

    /// What every device takes as alignment of memory, offsets and lengths (`open(2)`, O_DIRECT).
    const ALIGNMENT: usize = 4096;
    /// Written by one call, and held in memory for it.
    const BLOCK_BYTES: usize = 1024 * 1024;

    /// Writes whole blocks as long as that works, and returns how many bytes they had; the rest is for ordinary writes.
    pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        let flags = rustix::fs::fcntl_getfl(&*file)?;
        if rustix::fs::fcntl_setfl(&*file, flags | OFlags::DIRECT).is_err() {
            return Ok(0);
        }
        let mut memory = vec![0; BLOCK_BYTES.saturating_add(ALIGNMENT)];
        let skip = memory.as_ptr().align_offset(ALIGNMENT);
        let mut written = 0;
        let done = loop {
            let rest = bytes.get(written..).unwrap_or_default();
            let len = rest.len().min(BLOCK_BYTES) / ALIGNMENT * ALIGNMENT;
            let (Some(block), Some(from)) = (memory.get_mut(skip..skip.saturating_add(len)), rest.get(..len))
            else {
                break Ok(());
            };
            if len == 0 {
                break Ok(());
            }
            block.copy_from_slice(from);
            match file.write(block) {
                // A part that ends in the middle of a block: what follows has no alignment any more.
                Ok(part) if part % ALIGNMENT != 0 || part == 0 => {
                    written = written.saturating_add(part);
                    break Ok(());
                }
                Ok(part) => written = written.saturating_add(part),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Taken as a flag and refused in use, or larger blocks are needed than there are.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        rustix::fs::fcntl_setfl(&*file, flags)?;
        done.map(|()| written)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod blocks {
    pub(super) fn write(_: &mut std::fs::File, _: &[u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn every_length_is_written_whole_wherever_the_blocks_end() {
        for directory in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = directory.path().join("file");
            let bytes: Vec<u8> =
                (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for len in
                [0, 1, DIRECT_BYTES_MIN - 1, DIRECT_BYTES_MIN, DIRECT_BYTES_MIN + 1, 2_500_000, 3 << 20]
            {
                let mut file = File::create(&path).unwrap();
                write(&mut file, &bytes[..len]).unwrap();
                file.sync_all().unwrap();
                assert!(std::fs::read(&path).unwrap() == bytes[..len], "{len} bytes in {}", path.display());
                assert!(!rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
            }
        }
    }

    #[test]
    fn where_the_file_system_lets_us_all_but_the_last_bytes_go_past_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::create(directory.path().join("file")).unwrap();
        let flags = rustix::fs::fcntl_getfl(&file).unwrap();
        let lets_us = rustix::fs::fcntl_setfl(&file, flags | OFlags::DIRECT).is_ok();
        rustix::fs::fcntl_setfl(&file, flags).unwrap();
        let written = blocks::write(&mut file, &vec![1; (3 << 20) + 5000]).unwrap();
        assert_eq!(written, if lets_us { (3 << 20) + 4096 } else { 0 });
    }

    #[test]
    fn what_is_written_to_cannot_be_full_unnoticed() {
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = write(&mut full, &vec![1; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

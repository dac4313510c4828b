//! The names in one directory, sorted, in as little memory as they need.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::RawDir;

/// The sorted names of a directory. They stand in one buffer, each with its terminator, so that a million names cost
/// their bytes and 8 more each.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
    next: usize,
}

/// The buffer that directories are read through.
pub(super) struct ListingBuffer(Vec<MaybeUninit<u8>>);

impl ListingBuffer {
    pub(super) fn new() -> Self {
        Self(vec![MaybeUninit::uninit(); 64 * 1024])
    }
}

impl Listing {
    /// Reads all names of `directory`. With the names read so far comes the error that ended the reading, if any.
    pub(super) fn read(
        directory: impl AsFd,
        buffer: &mut ListingBuffer,
    ) -> (Self, Option<rustix::io::Errno>) {
        let mut listing = Self::default();
        let mut entries = RawDir::new(directory, &mut buffer.0);
        let mut failure = None;
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_bytes_with_nul();
                    if matches!(name, b".\0" | b"..\0") {
                        continue;
                    }
                    let (Ok(start), Ok(len)) =
                        (u32::try_from(listing.bytes.len()), u32::try_from(name.len()))
                    else {
                        // 4 GiB of names in one directory.
                        failure = Some(rustix::io::Errno::OVERFLOW);
                        break;
                    };
                    listing.bytes.extend_from_slice(name);
                    listing.spans.push((start, len));
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // A directory that changes while it is read may yield a name twice.
        let bytes = &listing.bytes;
        listing.spans.sort_unstable_by(|a, b| span(bytes, *a).cmp(span(bytes, *b)));
        listing.spans.dedup_by(|a, b| span(bytes, *a) == span(bytes, *b));
        (listing, failure)
    }

    /// The next name in order.
    pub(super) fn next(&mut self) -> Option<&CStr> {
        let at = *self.spans.get(self.next)?;
        self.next = self.next.saturating_add(1);
        CStr::from_bytes_with_nul(span(&self.bytes, at)).ok()
    }

    /// Leaves only `name`, if it is there.
    pub(super) fn retain(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.spans.retain(|at| span(bytes, *at).strip_suffix(b"\0") == Some(name));
    }

    /// Whether `name` is there.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.spans
            .binary_search_by(|at| span(&self.bytes, *at).strip_suffix(b"\0").unwrap_or_default().cmp(name))
            .is_ok()
    }
}

fn span(bytes: &[u8], (start, len): (u32, u32)) -> &[u8] {
    let start = usize::try_from(start).unwrap_or_default();
    let len = usize::try_from(len).unwrap_or_default();
    bytes.get(start..start.saturating_add(len)).unwrap_or_default()
}

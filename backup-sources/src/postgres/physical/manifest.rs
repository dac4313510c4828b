//! `backup_manifest`, by which `pg_verifybackup` judges a restored cluster.
//!
//! See the appendix "Backup Manifest Format" of the PostgreSQL manual. Version 1 is what all versions from 13 on read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use backup_core::{EntryName, Timestamp};
use sha2::{Digest as _, Sha256};

use super::digest::Checksum;
use crate::postgres::{Lsn, Timeline};

/// The files of a backup, as they become known.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    files: BTreeMap<EntryName, File>,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    modified: Timestamp,
    checksum: Option<Checksum>,
}

impl Manifest {
    /// Notes a file whose content is in the backup.
    pub(super) fn add(
        &mut self,
        name: EntryName,
        bytes: u64,
        modified: Timestamp,
        checksum: Option<Checksum>,
    ) {
        self.files.insert(name, File { bytes, modified, checksum });
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.files.len() as u64
    }

    /// The file's content, which needs the log from `start` to `end` of one timeline.
    pub(super) fn write(&self, timeline: Timeline, start: Lsn, end: Lsn) -> Vec<u8> {
        let mut text = String::from("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [");
        for (number, (name, file)) in self.files.iter().enumerate() {
            text.push_str(if number == 0 { "\n" } else { ",\n" });
            let File { bytes, modified, checksum } = file;
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "{{ {}, \"Size\": {bytes}, \"Last-Modified\": \"{}\"",
                path(name),
                gmt(*modified)
            );
            if let Some(checksum) = checksum {
                let (kind, hex) = (checksum.kind.name(), hex::encode(&checksum.bytes));
                let _ = write!(text, ", \"Checksum-Algorithm\": \"{kind}\", \"Checksum\": \"{hex}\"");
            }
            text.push_str(" }");
        }
        let timeline = timeline.get();
        let _ = write!(
            text,
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}\n],\n"
        );
        // Of all that stands before it.
        let checksum = hex::encode(Sha256::digest(text.as_bytes()));
        let _ = writeln!(text, "\"Manifest-Checksum\": \"{checksum}\"}}");
        text.into_bytes()
    }
}

fn path(name: &EntryName) -> String {
    let plain = std::str::from_utf8(name.as_bytes()).ok();
    match plain.and_then(|name| serde_json::to_string(name).ok()) {
        Some(quoted) => format!("\"Path\": {quoted}"),
        None => format!("\"Encoded-Path\": \"{}\"", hex::encode(name.as_bytes())),
    }
}

fn gmt(time: Timestamp) -> String {
    let time = time.to_jiff().unwrap_or_default();
    format!("{} GMT", time.strftime("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::physical::ManifestChecksum;

    #[test]
    fn the_manifest_is_json_and_ends_with_the_hash_of_what_stands_before() {
        let mut manifest = Manifest::default();
        let checksum = Checksum::of(ManifestChecksum::Crc32c, b"123456789");
        let name = |name: &[u8]| EntryName::new(name).unwrap();
        manifest.add(name(b"PG_VERSION"), 3, Timestamp::new(1_601_576_786, 5), Some(checksum));
        manifest.add(name(b"a \"quoted\" \xff"), 0, Timestamp::default(), None);
        manifest.add(name(b"a \"quoted\""), 0, Timestamp::default(), None);
        let text = manifest.write(Timeline::FIRST, Lsn::new(0x200_0028), Lsn::new(0x200_0100));
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["Files"][0]["Path"], "PG_VERSION");
        assert_eq!(value["Files"][0]["Last-Modified"], "2020-10-01 18:26:26 GMT");
        // The check value of CRC-32C is e3069283; its bytes are written as they stand in memory.
        assert_eq!(value["Files"][0]["Checksum"], "839206e3");
        assert_eq!(value["Files"][1]["Path"], "a \"quoted\"");
        assert_eq!(value["Files"][2]["Encoded-Path"], "61202271756f7465642220ff");
        assert_eq!(value["WAL-Ranges"][0]["Start-LSN"], "0/2000028");
        let text = String::from_utf8(text).unwrap();
        let (before, _) = text.split_once("\"Manifest-Checksum\"").unwrap();
        assert_eq!(value["Manifest-Checksum"], hex::encode(Sha256::digest(before)));
    }
}

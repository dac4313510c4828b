//! Kinds of data, as far as names tell.

use crate::EntryName;

/// What an entry holds, by the last part of its name: enough to see which data compresses, and which grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DataKind {
    /// What is packed already: `gz`, `zip`, `jar`.
    Archive,
    /// Files of databases: `db`, `sqlite`, `rdb`, `bson`.
    Database,
    /// What people write and print: `pdf`, `docx`.
    Document,
    /// Pictures.
    Image,
    /// `json`, and rows of it.
    Json,
    /// What programs say as they run: `log`, `journal`.
    Log,
    /// Sound and film.
    Media,
    /// What processors run: `so`, `exe`, `wasm`.
    Program,
    /// What programmers write.
    Source,
    /// Dumps of databases: `sql`, `dump`.
    Sql,
    /// `csv`, `tsv`, `parquet`.
    Table,
    /// Other text: `txt`, `xml`, `conf`.
    Text,
    /// Anything else.
    Other,
}

impl DataKind {
    /// All kinds, in the order of their names; the last is what is none of the others.
    pub const ALL: [Self; 13] = [
        Self::Archive,
        Self::Database,
        Self::Document,
        Self::Image,
        Self::Json,
        Self::Log,
        Self::Media,
        Self::Program,
        Self::Source,
        Self::Sql,
        Self::Table,
        Self::Text,
        Self::Other,
    ];

    /// The kind that a name tells.
    ///
    /// ```
    /// use backup_core::{DataKind, EntryName};
    ///
    /// assert_eq!(DataKind::of(&EntryName::new("srv/dump-2026-11-20.SQL")?), DataKind::Sql);
    /// assert_eq!(DataKind::of(&EntryName::new("srv/dump.sql.gz")?), DataKind::Archive);
    /// assert_eq!(DataKind::of(&EntryName::new("usr/lib/libz.so.1.3")?), DataKind::Program);
    /// assert_eq!(DataKind::of(&EntryName::new("etc/passwd")?), DataKind::Other);
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    pub fn of(name: &EntryName) -> Self {
        let last = name.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        // What follows the last dot that letters follow: libraries end in their versions.
        let mut parts = last.rsplit(|&byte| byte == b'.');
        let mut extension = parts.next().unwrap_or_default();
        while extension.iter().all(u8::is_ascii_digit)
            && let Some(before) = parts.next()
        {
            extension = before;
        }
        let mut lower = [0; EXTENSION_BYTES_MAX];
        // The first part is the name itself, and no extension.
        if extension.len() >= last.len() || extension.len() > lower.len() || parts.next().is_none() {
            return Self::Other;
        }
        for (to, from) in lower.iter_mut().zip(extension) {
            *to = from.to_ascii_lowercase();
        }
        Self::of_extension(lower.get(..extension.len()).unwrap_or_default())
    }

    fn of_extension(extension: &[u8]) -> Self {
        match extension {
            b"gz" | b"tgz" | b"bz2" | b"xz" | b"zst" | b"lz4" | b"zip" | b"7z" | b"rar" | b"tar" | b"jar"
            | b"war" | b"whl" | b"deb" | b"rpm" | b"apk" | b"crate" | b"iso" => Self::Archive,
            b"db" | b"sqlite" | b"sqlite3" | b"mdb" | b"ibd" | b"frm" | b"myd" | b"myi" | b"rdb" | b"aof"
            | b"wt" | b"bson" | b"ldb" | b"sst" => Self::Database,
            b"pdf" | b"doc" | b"docx" | b"xls" | b"xlsx" | b"ppt" | b"pptx" | b"odt" | b"ods" | b"odp"
            | b"epub" | b"eml" | b"ps" => Self::Document,
            b"jpg" | b"jpeg" | b"png" | b"gif" | b"webp" | b"avif" | b"heic" | b"tif" | b"tiff" | b"bmp"
            | b"ico" | b"psd" | b"raw" | b"svg" => Self::Image,
            b"json" | b"jsonl" | b"ndjson" | b"geojson" => Self::Json,
            b"log" | b"journal" | b"trace" => Self::Log,
            b"mp3" | b"mp4" | b"m4a" | b"m4v" | b"mkv" | b"mov" | b"avi" | b"webm" | b"ogg" | b"opus"
            | b"flac" | b"wav" | b"aac" => Self::Media,
            b"so" | b"a" | b"o" | b"ko" | b"exe" | b"dll" | b"dylib" | b"bin" | b"wasm" | b"class"
            | b"pyc" | b"rlib" | b"rmeta" => Self::Program,
            b"rs" | b"c" | b"h" | b"cc" | b"cpp" | b"hpp" | b"go" | b"py" | b"js" | b"mjs" | b"ts"
            | b"tsx" | b"jsx" | b"java" | b"kt" | b"rb" | b"php" | b"pl" | b"sh" | b"cs" | b"swift"
            | b"scala" | b"lua" | b"css" => Self::Source,
            b"sql" | b"dump" | b"pgdump" => Self::Sql,
            b"csv" | b"tsv" | b"parquet" | b"arrow" | b"orc" | b"avro" => Self::Table,
            b"txt" | b"md" | b"rst" | b"xml" | b"html" | b"htm" | b"yml" | b"yaml" | b"toml" | b"ini"
            | b"conf" | b"cfg" | b"tex" | b"po" => Self::Text,
            _ => Self::Other,
        }
    }

    /// Its name, as snapshots and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Database => "database",
            Self::Document => "document",
            Self::Image => "image",
            Self::Json => "json",
            Self::Log => "log",
            Self::Media => "media",
            Self::Program => "program",
            Self::Source => "source",
            Self::Sql => "sql",
            Self::Table => "table",
            Self::Text => "text",
            Self::Other => "other",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) fn place(self) -> usize {
        self as usize
    }
}

/// No extension that says anything is longer.
const EXTENSION_BYTES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> DataKind {
        DataKind::of(&EntryName::new(name).unwrap())
    }

    #[test]
    fn only_an_extension_tells() {
        assert_eq!(of("a/b.json"), DataKind::Json);
        assert_eq!(of("a.sql/b"), DataKind::Other, "a directory's");
        assert_eq!(of("sql"), DataKind::Other, "no dot");
        assert_eq!(of(".sql"), DataKind::Sql, "hidden, and still one");
        assert_eq!(of("sql."), DataKind::Other);
        assert_eq!(of("messages.log.3"), DataKind::Log);
        assert_eq!(of("1.2.3"), DataKind::Other);
        assert_eq!(of("a.averylongextension"), DataKind::Other);
        assert_eq!(of("a.ÄÖ"), DataKind::Other);
    }

    #[test]
    fn every_kind_is_where_it_says() {
        for (place, kind) in DataKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.place(), place);
        }
    }
}

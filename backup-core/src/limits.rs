//! Every bound of the engine in one place. Units come last in each name.
//!
//! Bounds on stored structures belong to the format: a reader refuses what exceeds them before it allocates.

/// Longest entry name.
pub const NAME_BYTES_MAX: usize = 64 * 1024;
/// Most plaintext in one frame. A frame is at most one chunk beyond [`SMALL_FILES_FRAME_TARGET_BYTES`].
pub const FRAME_PLAIN_BYTES_MAX: usize = 16 * MIB;
/// Most bytes of one frame as stored: incompressible plaintext plus the overhead of the transforms.
pub const FRAME_STORED_BYTES_MAX: usize = FRAME_PLAIN_BYTES_MAX + 64 * 1024;
/// Plaintext after which a worker closes a frame of long content. A frame is what reading any of its chunks costs, and what
/// a damaged byte does.
pub const FRAME_TARGET_BYTES: usize = MIB;
/// The same for small files: the more of them stand beside each other, the less those take that are alike.
pub const SMALL_FILES_FRAME_TARGET_BYTES: usize = 4 * MIB;
/// Chunks of long content have at least so many bytes on average; small files rarely do.
pub const LONG_CHUNK_BYTES: usize = 64 * 1024;
/// Largest chunk.
pub const CHUNK_BYTES_MAX: usize = 8 * MIB;
/// Smallest permitted minimum chunk size: the gear window must fit.
pub const CHUNK_BYTES_MIN: usize = 64;
/// Stored bytes after which a worker closes a pack.
pub const PACK_TARGET_BYTES: usize = 16 * MIB;
/// Largest stored object.
pub const OBJECT_BYTES_MAX: usize = 64 * MIB;
/// Most frames in one pack.
pub const PACK_FRAMES_MAX: usize = 65_536;
/// Most chunks in one pack.
pub const PACK_CHUNKS_MAX: usize = 1 << 20;
/// Largest key slot, config, session or other small control object.
pub const CONTROL_BYTES_MAX: usize = MIB;
/// Largest snapshot object; what grows with the number of entries is paged and does not count.
pub const SNAPSHOT_BYTES_MAX: usize = 16 * MIB;
/// Content at most this long stands in its entry instead of a chunk.
pub const INLINE_BYTES_MAX: usize = 384;
/// Most chunks that an entry lists itself; longer lists are paged.
pub const INLINE_CHUNKS_MAX: usize = 32;
/// Plaintext after which a page is cut wherever it is.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Plaintext that a page has at least, unless it is the last.
pub const PAGE_BYTES_MIN: usize = 512;
/// Rows that a page has at most.
pub const PAGE_ROWS_MAX: usize = 64 * 1024;
/// Bytes of all names in one entry page, written out, though each is stored by its difference from the one before.
pub const PAGE_NAMES_BYTES_MAX: usize = 8 * MIB;
/// Bytes of one entry's attributes, stamp and link target together.
pub const ENTRY_BYTES_MAX: usize = 4 * MIB;
/// Deepest tree of pages.
pub const PAGE_LEVELS_MAX: u8 = 8;
/// Most attributes of one entry.
pub const ENTRY_ATTRIBUTES_MAX: usize = 4096;
/// Most users, and most groups, whose names a snapshot has.
pub const OWNER_NAMES_MAX: usize = 10_000;
/// Longest name of a user or group, in bytes.
pub const OWNER_NAME_BYTES_MAX: usize = 256;
/// Longest value of one attribute.
pub const ATTRIBUTE_BYTES_MAX: usize = 128 * 1024;
/// Most transforms in a chain.
pub const CHAIN_TRANSFORMS_MAX: usize = 8;
/// Longest object key.
pub const KEY_BYTES_MAX: usize = 512;
/// Most bytes of a log segment in one object; longer segments are stored in pieces.
pub const LOG_PIECE_BYTES_MAX: usize = 32 * MIB;
/// Bytes of a log segment that is read back, joined from its pieces: PostgreSQL's are of 1 GiB at most.
pub const LOG_SEGMENT_BYTES_MAX: usize = 1024 * MIB;
/// Names that are tried for one log segment: each of them was condemned.
pub const LOG_NAMES_MAX: u32 = 1000;
/// How often archiving looks whether what it put has been condemned since.
pub const LOG_LOOKS_MAX: usize = 10;
/// Log segments that are sealed and put, or read, at once in one call.
pub const LOG_AT_ONCE_MAX: usize = 4;
/// Index rows after which a segment is written.
pub const SEGMENT_ROWS_TARGET: usize = 128 * 1024;
/// Plaintext after which an index segment is written.
pub const SEGMENT_TARGET_BYTES: usize = 16 * MIB;
/// Most plaintext in one index segment, all its frames together.
pub const SEGMENT_BYTES_MAX: usize = 64 * MIB;
/// Rows in one page of an index segment.
pub const SEGMENT_PAGE_ROWS: usize = 4096;
/// Parts of what distinguishes a source, such as the paths that are backed up.
pub const IDENTITY_PARTS_MAX: usize = 64 * 1024;
/// Reasons that an anomaly has at most.
pub const ANOMALY_REASONS_MAX: usize = 16;
/// Kinds of data that a snapshot's workload names at most.
pub const WORKLOAD_KINDS_MAX: usize = 256;
/// Skipped items that a report names; the rest is counted.
pub const REPORT_SKIPPED_MAX: usize = 10_000;
/// Bytes of the skipped items that a report names, written as JSON: they stand in the snapshot.
pub const REPORT_SKIPPED_BYTES_MAX: usize = 4 * MIB;
/// Objects whose names are held in memory at once: snapshots, sets, sessions, index segments. Not packs.
pub const LISTED_OBJECTS_MAX: usize = 1 << 20;
/// Objects that one page of a listing may hold.
pub const LIST_PAGE_OBJECTS_MAX: usize = 1000;

/// Seconds between two signs of life of a session.
pub const SESSION_BEAT_SECONDS: i64 = 120;
/// Seconds without a sign of life, by the store's clock, after which a session may be shut out.
pub const SESSION_STOPPED_SECONDS: i64 = 1800;
/// Sessions that one backup may take, each begun because the one before was shut out.
pub const BACKUP_SESSIONS_MAX: usize = 4;
/// Names in one part of what a collection condemns.
pub const CONDEMNED_PART_NAMES: usize = 50_000;
/// The same of log segments, whose names are longer.
pub const CONDEMNED_PART_LOGS: usize = 10_000;
/// Names that one collection condemns at most; what is left is for the next one.
pub const CONDEMNED_NAMES_MAX: usize = 1 << 20;
/// Seconds by which a writer's clock may be ahead of the store's before its snapshots count for nothing.
pub const CLOCKS_DIFFER_SECONDS_MAX: i64 = 3600;
/// Seconds that a run may take before the time at which it says it began counts for nothing.
pub const RUN_SECONDS_MAX: i64 = 14 * 86_400;
/// Objects with the times of snapshots that are left as they are; more are merged.
pub const OBSERVED_OBJECTS_MAX: usize = 8;
/// Snapshots in one such object.
pub const OBSERVED_SNAPSHOTS: usize = 100_000;
/// Bytes of the object that is given up for a collection where the store is full.
pub const RESERVE_BYTES: usize = 256 * 1024;
/// Names that such a collection condemns at most: they and all that belongs to it take less than that object did.
pub const CONDEMNED_NAMES_IN_RESERVE: usize = 256;
/// Forgotten snapshots that such a collection lets expire at most.
pub const EXPIRED_IN_RESERVE: usize = 8;
/// Packs of less than this are small: many of them are written anew as one.
pub const SMALL_PACK_BYTES: usize = PACK_TARGET_BYTES / 8;
/// Small packs of one kind that do no harm.
pub const SMALL_PACKS_MAX: usize = 32;
/// Packs that one call writes anew at most, whatever was asked for.
pub const REPACKED_PACKS_MAX: usize = 1 << 16;
/// Bytes of a report that evidence holds; of a longer one it holds that it is too long.
pub const EVIDENCE_REPORT_BYTES_MAX: usize = 512 * 1024;
/// Evidence of verifications that is read to find out when what was verified, the newest.
pub const EVIDENCE_READ_MAX: usize = 1000;
/// Characters of a kind of evidence that stand in names of objects.
pub const EVIDENCE_KIND_CHARS: usize = 64;
/// Names that a collection can rescue; one that would have to rescue more is abandoned.
pub const RESCUED_NAMES_MAX: usize = 50_000;
/// Names in one digest.
pub const DIGEST_NAMES: usize = 200_000;
/// Digests after which they are merged.
pub const DIGESTS_MAX: usize = 16;

/// 2^20 bytes.
pub const MIB: usize = 1024 * 1024;

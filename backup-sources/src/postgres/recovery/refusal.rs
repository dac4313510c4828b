//! Why a recovery is refused.

use std::fmt;
use std::path::PathBuf;

use backup_core::{Error, ErrorKind, Timestamp};
use serde::{Deserialize, Serialize};

use crate::postgres::wal::SegmentName;
use crate::postgres::{Lsn, Timeline};

/// Something for which a recovery cannot work, found before anything was copied or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refused")]
#[non_exhaustive]
pub enum Refusal {
    /// There is no base backup to begin with.
    NoBase,
    /// The target itself is nothing that a server could be told.
    BadTarget {
        /// Why.
        why: String,
    },
    /// The archive has no log of the base backup's cluster.
    WrongLineage {
        /// The cluster's system identifier.
        wanted: u64,
        /// Those whose log is there.
        found: Vec<u64>,
    },
    /// Segments in the archive have another length than the cluster's.
    WrongSegmentSize {
        /// Bytes of the cluster's.
        wanted: u64,
        /// Bytes of the archive's.
        found: u64,
    },
    /// The history file of a timeline is not in the archive.
    MissingHistory {
        /// The timeline.
        timeline: Timeline,
    },
    /// The history file of a timeline cannot be used.
    DamagedHistory {
        /// The timeline.
        timeline: Timeline,
        /// Why.
        why: String,
    },
    /// The timeline is not known to the archive.
    UnknownTimeline {
        /// The timeline.
        timeline: Timeline,
    },
    /// The base backup does not lie on the way to the target's timeline.
    NotAnAncestor {
        /// The target's timeline.
        timeline: Timeline,
        /// The base backup's.
        base: Timeline,
        /// Where the way left the base backup's timeline, if it ever was on it.
        left: Option<Lsn>,
        /// Where the base backup ends.
        stop: Lsn,
    },
    /// A standby told to follow the newest timeline counts up by one, and the numbers do not follow each other.
    TimelineJump {
        /// The timeline that it would stop at.
        after: Timeline,
        /// The one that it must get to.
        wanted: Timeline,
    },
    /// Segments that replay must have are not in the archive.
    MissingSegments {
        /// The first.
        first: SegmentName,
        /// The last of those that follow each other.
        last: SegmentName,
        /// How the gap came about, where that is recorded.
        why: Option<String>,
    },
    /// A segment that replay must have is there in part only.
    IncompleteSegment {
        /// The segment.
        segment: SegmentName,
        /// Bytes of it that are there.
        bytes: u64,
    },
    /// A segment that replay must have cannot be used.
    DamagedSegment {
        /// The segment.
        segment: SegmentName,
        /// Why.
        why: String,
    },
    /// The target lies before the base backup's end: the files are not consistent there.
    BeforeBackupEnd {
        /// The target.
        target: String,
        /// Where the backup ends.
        stop: Lsn,
        /// When it ended.
        time: Timestamp,
    },
    /// The archive's log ends before the target, or does not have it at all.
    NotReached {
        /// The target.
        target: String,
        /// Until where the log is there.
        end: Option<Lsn>,
        /// The latest end of a transaction in it.
        time: Option<Timestamp>,
    },
    /// Nobody has looked into the segments that would tell whether the target is there.
    NotProven {
        /// The target.
        target: String,
        /// The first segment of which nothing is known.
        segment: SegmentName,
    },
    /// A server runs in the target directory.
    ServerRuns {
        /// The directory.
        directory: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The target directory holds a cluster, and replacing it was not asked for.
    ClusterThere {
        /// The directory.
        directory: PathBuf,
        /// Its system identifier, where it can be read.
        system_identifier: Option<u64>,
    },
    /// The target directory holds something that is no cluster.
    NotACluster {
        /// The directory.
        directory: PathBuf,
        /// Something in it.
        example: String,
    },
    /// A tablespace's directory is not empty.
    TablespaceNotEmpty {
        /// The tablespace.
        oid: u32,
        /// Its directory.
        directory: PathBuf,
    },
    /// The log makes a tablespace: replay has it in the directory in which it was made, and writes there, wherever the cluster is recovered to.
    TablespaceMade {
        /// The tablespace.
        oid: u32,
        /// The directory.
        directory: PathBuf,
        /// Where in the log.
        at: Lsn,
        /// What is wrong with the directory.
        why: String,
    },
    /// A directory cannot be what it is to be.
    BadDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        why: String,
    },
    /// There is not enough space.
    NoSpace {
        /// A directory on the file system.
        directory: PathBuf,
        /// Bytes that are needed on it.
        needed: u64,
        /// Bytes that are free, counting those that the recovery frees.
        free: u64,
    },
    /// The server's programs are of another major version than the cluster.
    WrongVersion {
        /// The cluster's.
        wanted: u32,
        /// The programs'.
        found: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBase => f.write_str("there is no base backup to recover from"),
            Self::BadTarget { why } => f.write_str(why),
            Self::WrongLineage { wanted, found } => write!(
                f,
                "the archive has no log of the cluster {wanted}; it has that of {found:?}. Give the archive of this cluster"
            ),
            Self::WrongSegmentSize { wanted, found } => {
                write!(f, "the archive's segments have {found} bytes and those of the cluster {wanted}")
            }
            Self::MissingHistory { timeline } => write!(
                f,
                "{timeline}.history is not in the archive, so nobody knows where timeline {} began; archive it again from \
                 the server's pg_wal",
                timeline.get()
            ),
            Self::DamagedHistory { timeline, why } => write!(f, "{timeline}.history cannot be used: {why}"),
            Self::UnknownTimeline { timeline } => {
                write!(f, "the archive has nothing of timeline {}", timeline.get())
            }
            Self::NotAnAncestor { timeline, base, left, stop } => {
                write!(f, "timeline {} does not lead on from the base backup: ", timeline.get())?;
                match left {
                    Some(left) => write!(
                        f,
                        "it left timeline {} at {left}, before the backup's end at {stop}",
                        base.get()
                    ),
                    None => write!(f, "it has no part of timeline {}", base.get()),
                }
            }
            Self::TimelineJump { after, wanted } => write!(
                f,
                "a standby that follows the newest timeline would stop at {}, as none has the next number, and never get to {}; \
                 name the timeline",
                after.get(),
                wanted.get()
            ),
            Self::MissingSegments { first, last, why } => {
                match first == last {
                    true => write!(f, "the segment {first} is not in the archive")?,
                    false => write!(f, "the segments {first} to {last} are not in the archive")?,
                }
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::IncompleteSegment { segment, bytes } => {
                write!(f, "only the first {bytes} bytes of the segment {segment} are in the archive")
            }
            Self::DamagedSegment { segment, why } => write!(f, "the segment {segment} cannot be used: {why}"),
            Self::BeforeBackupEnd { target, stop, time } => write!(
                f,
                "{target} lies before the end of the base backup at {stop}, {time}; take an earlier base backup"
            ),
            Self::NotReached { target, end, time } => {
                write!(f, "the archive's log does not reach {target}")?;
                end.iter().try_for_each(|end| write!(f, "; it ends at {end}"))?;
                time.iter().try_for_each(|time| write!(f, "; its last transaction ended at {time}"))
            }
            Self::NotProven { target, segment } => write!(
                f,
                "whether the archive's log reaches {target} is not known: nobody has looked into the segment {segment}"
            ),
            Self::ServerRuns { directory, pid } => {
                write!(f, "a server runs in `{}`, as process {pid}; stop it first", directory.display())
            }
            Self::ClusterThere { directory, system_identifier } => {
                write!(f, "`{}` holds a cluster", directory.display())?;
                system_identifier.iter().try_for_each(|id| write!(f, ", {id}"))?;
                f.write_str("; say that it is to be replaced, or give an empty directory")
            }
            Self::NotACluster { directory, example } => write!(
                f,
                "`{}` is neither empty nor a cluster: it holds `{example}`; give an empty directory",
                directory.display()
            ),
            Self::TablespaceNotEmpty { oid, directory } => write!(
                f,
                "the directory `{}` for the tablespace {oid} is not empty; give another one",
                directory.display()
            ),
            Self::TablespaceMade { oid, directory, at, why } => write!(
                f,
                "the log makes the tablespace {oid} in `{}`, at {at}, and a server that replays it writes there: {why}; take a base \
                 backup that was made after it",
                directory.display()
            ),
            Self::BadDirectory { directory, why } => write!(f, "`{}` {why}", directory.display()),
            Self::NoSpace { directory, needed, free } => write!(
                f,
                "`{}` needs {needed} bytes and its file system has {free} free",
                directory.display()
            ),
            Self::WrongVersion { wanted, found } => {
                write!(
                    f,
                    "the base backup is of PostgreSQL {wanted}, and the programs are of {found}; install {wanted}"
                )
            }
        }
    }
}

/// All that a recovery was refused for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The base backup that came nearest, where there was one.
    pub base: Option<String>,
    /// The reasons, at least one.
    pub reasons: Vec<Refusal>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the recovery cannot work, and nothing was changed")?;
        self.base.iter().try_for_each(|base| write!(f, " (base backup {base})"))?;
        for (at, reason) in self.reasons.iter().enumerate() {
            write!(f, "{} {reason}", if at == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let damaged = |reason: &Refusal| {
            matches!(reason, Refusal::DamagedSegment { .. } | Refusal::DamagedHistory { .. })
        };
        let missing = |reason: &Refusal| {
            use Refusal::{
                IncompleteSegment, MissingHistory, MissingSegments, NoBase, NotReached, UnknownTimeline,
            };
            matches!(
                reason,
                NoBase
                    | MissingHistory { .. }
                    | MissingSegments { .. }
                    | IncompleteSegment { .. }
                    | NotReached { .. }
                    | UnknownTimeline { .. }
            )
        };
        let kind = match refused.reasons.first() {
            Some(reason) if damaged(reason) => ErrorKind::Corruption,
            Some(Refusal::NoSpace { .. }) => ErrorKind::NoSpace,
            Some(reason) if missing(reason) => ErrorKind::NotFound,
            _ => ErrorKind::InvalidInput,
        };
        Self::new(kind, refused.to_string()).with_source(refused)
    }
}

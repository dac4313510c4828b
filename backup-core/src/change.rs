//! What changed from one snapshot to the next, and whether that is how things change.
//!
//! Everything here comes from what a backup sees anyway. The judgement is a pure function of these numbers.

use serde::{Deserialize, Serialize};

use crate::limits::MIB;

/// How a snapshot differs from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Entries that the parent does not have.
    pub entries_new: u64,
    /// Entries whose content was read anew: it may have changed.
    pub entries_changed: u64,
    /// Entries that the parent has and it does not.
    pub entries_deleted: u64,
    /// New entries of whose content nothing was new: renamed or copied ones, mostly.
    pub entries_moved: u64,
    /// Entries that the parent has.
    pub entries_before: u64,
    /// Bytes of content that the parent has.
    pub bytes_before: u64,
    /// Bytes of content of the parent's that changed or is gone.
    pub bytes_replaced: u64,
    /// Bytes of content that were new, before compression.
    pub bytes_new: u64,
    /// How many hundredths of its bytes the replaced content took when it was stored, by a sample; none where that is not known.
    pub stored_percent_before: Option<u8>,
    /// The same of the new content.
    pub stored_percent_now: Option<u8>,
}

/// How unlikely a change is to be anybody's will.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Anomaly {
    /// From 0 to 100. From [`Anomaly::PAUSES_FROM`] on, collections wait until somebody has looked.
    pub score: u8,
    /// Why, one line a reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Less than this replaced says nothing: a single file may become anything.
const REPLACED_BYTES_MIN: u64 = MIB as u64 / 4;
/// A tree of fewer entries may lose most of them on any day.
const ENTRIES_MIN: u64 = 20;
/// The share of content, in hundredths, that is enough when all of it has lost its order.
const REPLACED_PERCENT_ENOUGH: u64 = 20;
/// What did not compress before cannot tell by that whether it is encrypted now: so much at most then.
const INCOMPRESSIBLE_SCORE: u64 = 40;

impl Anomaly {
    /// From this score on a snapshot is one that somebody should look at.
    pub const PAUSES_FROM: u8 = 50;

    /// Whether somebody should look at it before anything is deleted.
    pub fn pauses(&self) -> bool {
        self.score >= Self::PAUSES_FROM
    }
}

impl Change {
    /// Judges. Three things count: content that used to compress and is replaced by as much that does not, which is what
    /// encryption by others looks like; much that is gone, with nothing in its place; and much that never compressed and is
    /// replaced, which says less.
    ///
    /// ```
    /// use backup_core::Change;
    ///
    /// let usual = Change {
    ///     entries_before: 1000, entries_changed: 700, bytes_before: 1 << 30, bytes_replaced: 700 << 20, bytes_new: 600 << 20,
    ///     stored_percent_before: Some(30), stored_percent_now: Some(31), ..Change::default()
    /// };
    /// assert!(usual.judge().score < 10, "an upgrade replaces much by its like");
    /// let encrypted = Change { stored_percent_now: Some(100), ..usual };
    /// assert!(encrypted.judge().pauses());
    /// ```
    pub fn judge(&self) -> Anomaly {
        let mut anomaly = Anomaly::default();
        let mut add = |score: u64, reason: String| {
            let score = u8::try_from(score.min(100)).unwrap_or(100);
            if score >= 10 {
                anomaly.score = anomaly.score.max(score);
                anomaly.reasons.push(reason);
            }
        };
        let replaced = percent(self.bytes_replaced, self.bytes_before);
        if self.bytes_replaced >= REPLACED_BYTES_MIN
            && let (Some(before), Some(now)) = (self.stored_percent_before, self.stored_percent_now)
        {
            let (before, now) = (u64::from(before.min(100)), u64::from(now.min(100)));
            // As much as was replaced: a little that is new and random is somebody's archive.
            let volume = percent(self.bytes_new, self.bytes_replaced).min(100);
            let share = (replaced.saturating_mul(100) / REPLACED_PERCENT_ENOUGH).min(100);
            let spread = volume.saturating_mul(share) / 100;
            if before < 95 {
                let lost = percent(now.saturating_sub(before), 100_u64.saturating_sub(before));
                let reason = format!(
                    "{replaced}% of the content was replaced; it took {before}% of its length when compressed, and what replaces it \
                     takes {now}%"
                );
                add(lost.min(100).saturating_mul(spread) / 100, reason);
            } else if replaced >= 50 {
                let reason = format!("{replaced}% of the content was replaced, none of which compresses");
                add(INCOMPRESSIBLE_SCORE.saturating_mul(volume) / 100, reason);
            }
        }
        let gone = self.entries_deleted.saturating_sub(self.entries_new.saturating_add(self.entries_moved));
        if self.entries_before >= ENTRIES_MIN {
            let share = percent(gone, self.entries_before);
            if share >= 50 {
                let before = self.entries_before;
                add(share, format!("{gone} of {before} entries are gone, and no others have come"));
            }
        }
        anomaly
    }
}

fn percent(part: u64, of: u64) -> u64 {
    let percent = u128::from(part).saturating_mul(100).checked_div(u128::from(of)).unwrap_or(0);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Change = Change {
        entries_new: 0,
        entries_changed: 0,
        entries_deleted: 0,
        entries_moved: 0,
        entries_before: 1000,
        bytes_before: 100 * MIB as u64,
        bytes_replaced: 0,
        bytes_new: 0,
        stored_percent_before: Some(30),
        stored_percent_now: Some(30),
    };

    fn mib(count: u64) -> u64 {
        count * MIB as u64
    }

    #[test]
    fn what_people_do_scores_low() {
        for (what, change) in [
            ("nothing", TREE),
            ("edits", Change { entries_changed: 30, bytes_replaced: mib(3), bytes_new: mib(1), ..TREE }),
            (
                "an upgrade",
                Change {
                    entries_changed: 700,
                    entries_new: 150,
                    entries_deleted: 120,
                    bytes_replaced: mib(80),
                    bytes_new: mib(85),
                    stored_percent_now: Some(33),
                    ..TREE
                },
            ),
            (
                "photographs come",
                Change { entries_new: 500, bytes_new: mib(900), stored_percent_now: Some(99), ..TREE },
            ),
            (
                "an archive of what was there",
                Change {
                    entries_new: 1,
                    entries_deleted: 20,
                    bytes_replaced: mib(4),
                    bytes_new: mib(2),
                    stored_percent_now: Some(100),
                    ..TREE
                },
            ),
            (
                "everything is moved",
                Change { entries_new: 1000, entries_moved: 1000, entries_deleted: 1000, ..TREE },
            ),
            ("a tidy-up", Change { entries_deleted: 300, bytes_replaced: mib(30), ..TREE }),
            ("the first snapshot", Change { entries_new: 1000, bytes_new: mib(100), ..Change::default() }),
        ] {
            let anomaly = change.judge();
            assert!(!anomaly.pauses() && anomaly.score < 40, "{what}: {anomaly:?}");
        }
    }

    #[test]
    fn what_encryption_by_others_looks_like_scores_high() {
        let encrypted = |share: u64| Change {
            entries_new: 10 * share,
            entries_deleted: 10 * share,
            bytes_replaced: mib(share),
            bytes_new: mib(share),
            stored_percent_now: Some(100),
            ..TREE
        };
        assert_eq!(encrypted(100).judge().score, 100);
        assert_eq!(encrypted(20).judge().score, 100);
        assert!(encrypted(11).judge().pauses());
        // It has begun.
        assert!(!encrypted(5).judge().pauses() && encrypted(5).judge().score >= 20);
        let never_compressed = Change { stored_percent_before: Some(99), ..encrypted(100) };
        assert_eq!(never_compressed.judge().score, 40);
    }

    #[test]
    fn what_is_mostly_gone_scores_high() {
        let gone = |entries| Change { entries_deleted: entries, bytes_replaced: mib(entries / 10), ..TREE };
        assert_eq!((gone(1000).judge().score, gone(600).judge().score), (100, 60));
        assert!(!Change { entries_before: 10, entries_deleted: 10, ..TREE }.judge().pauses(), "few");
    }

    #[test]
    fn no_numbers_are_too_large() {
        let most = Change {
            entries_new: u64::MAX,
            entries_changed: u64::MAX,
            entries_deleted: u64::MAX,
            entries_moved: u64::MAX,
            entries_before: u64::MAX,
            bytes_before: 1,
            bytes_replaced: u64::MAX,
            bytes_new: u64::MAX,
            stored_percent_before: Some(0),
            stored_percent_now: Some(255),
        };
        assert_eq!(most.judge().score, 100);
    }
}

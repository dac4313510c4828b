//! Which packs are worth writing anew.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::RepackOptions;
use crate::limits;
use crate::report::CollectReport;
use crate::repository::collect::roots::ListedPack;
use crate::transform::ObjectType;

/// Packs that are kept and have something that nobody needs, or are small.
#[derive(Debug, Default)]
pub(in crate::repository::collect) struct Wasted {
    partly: Vec<Candidate>,
    small: [Vec<Candidate>; 2],
    /// Stored bytes of all packs that are kept, and how many of them nobody needs.
    kept: u64,
    unused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Which share of it nobody needs, in parts of 2^32.
    share: u32,
    unused: u64,
    len: u64,
    digest: [u8; 32],
}

impl Wasted {
    /// A pack that is kept, of whose `all` bytes of content `live` are needed.
    pub(in crate::repository::collect) fn note(&mut self, pack: &ListedPack, live: u64, all: u64) {
        let dead = u128::from(all.saturating_sub(live));
        let of_dead = |whole: u128| whole.saturating_mul(dead).checked_div(u128::from(all)).unwrap_or(0);
        let share = u32::try_from(of_dead(1 << 32)).unwrap_or(u32::MAX);
        let unused = u64::try_from(of_dead(u128::from(pack.len))).unwrap_or(u64::MAX);
        self.kept = self.kept.saturating_add(pack.len);
        self.unused = self.unused.saturating_add(unused);
        let candidate = Candidate { share, unused, len: pack.len, digest: pack.digest };
        if unused > 0 {
            push(&mut self.partly, candidate, |candidate| Reverse(candidate.share));
        }
        if pack.len < limits::SMALL_PACK_BYTES as u64 {
            let [data, meta] = &mut self.small;
            let of_kind = if pack.object_type == ObjectType::Data { data } else { meta };
            push(of_kind, candidate, |candidate| candidate.len);
        }
    }

    /// The packs to write anew: those of which most is unneeded until little enough is, and small ones where there are many.
    pub(in crate::repository::collect) fn choose(
        self,
        options: &RepackOptions,
        report: &mut CollectReport,
    ) -> Vec<[u8; 32]> {
        let Self { mut partly, small, kept, mut unused } = self;
        let allowed = u128::from(kept).saturating_mul(options.max_unused_percent.into()) / 100;
        let mut chosen: Vec<[u8; 32]> = Vec::new();
        let mut bytes = 0_u64;
        let mut left = false;
        let mut take = |candidate: &Candidate, chosen: &mut Vec<[u8; 32]>| {
            let more = bytes.saturating_add(candidate.len);
            let fits = more <= options.max_bytes && chosen.len() < limits::REPACKED_PACKS_MAX;
            if fits {
                bytes = more;
                chosen.push(candidate.digest);
            } else {
                left = true;
            }
            fits
        };
        partly.sort_unstable_by_key(|candidate| (Reverse(candidate.share), candidate.digest));
        for candidate in &partly {
            if u128::from(unused) <= allowed || !take(candidate, &mut chosen) {
                break;
            }
            unused = unused.saturating_sub(candidate.unused);
        }
        let wasteful = u128::from(unused) > allowed;
        let partly: HashSet<[u8; 32]> = chosen.iter().copied().collect();
        // With nothing permitted nothing is left over, either.
        for mut of_kind in small.into_iter().filter(|_| options.max_bytes > 0) {
            of_kind.retain(|candidate| !partly.contains(&candidate.digest));
            if of_kind.len() < limits::SMALL_PACKS_MAX {
                continue;
            }
            of_kind.sort_unstable_by_key(|candidate| (candidate.len, candidate.digest));
            for candidate in &of_kind {
                if !take(candidate, &mut chosen) {
                    break;
                }
            }
        }
        report.more_to_repack |= left || wasteful;
        chosen
    }
}

/// Adds one, and forgets the last ones in order when there are too many.
fn push<K: Ord>(candidates: &mut Vec<Candidate>, candidate: Candidate, key: impl Fn(&Candidate) -> K) {
    candidates.push(candidate);
    if candidates.len() >= 2 * limits::REPACKED_PACKS_MAX {
        candidates.sort_unstable_by_key(|candidate| (key(candidate), candidate.digest));
        candidates.truncate(limits::REPACKED_PACKS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = limits::MIB as u64;

    fn pack(number: u8, len: u64) -> ListedPack {
        ListedPack { object_type: ObjectType::Data, digest: [number; 32], len }
    }

    fn chosen(wasted: Wasted, percent: u8, max_bytes: u64) -> (Vec<u8>, bool) {
        let mut report = CollectReport::default();
        let options = RepackOptions { max_unused_percent: percent, max_bytes };
        let chosen = wasted.choose(&options, &mut report);
        (chosen.iter().map(|digest| digest[0]).collect(), report.more_to_repack)
    }

    /// Ten packs of 16 MiB; of the first nobody needs a tenth, of the second two tenths, and so on.
    fn tenths() -> Wasted {
        let mut wasted = Wasted::default();
        for number in 1..=10 {
            wasted.note(&pack(number, 16 * MIB), 10 - u64::from(number), 10);
        }
        wasted
    }

    #[test]
    fn packs_go_in_the_order_of_their_waste_until_little_enough_is_left() {
        // 55 of 100 parts are unneeded.
        assert_eq!(chosen(tenths(), 55, u64::MAX), (vec![], false));
        assert_eq!(chosen(tenths(), 54, u64::MAX), (vec![10], false));
        assert_eq!(chosen(tenths(), 28, u64::MAX), (vec![10, 9, 8], false));
        assert_eq!(chosen(tenths(), 0, u64::MAX), ((1..=10).rev().collect(), false));
        assert_eq!(chosen(tenths(), 0, 48 * MIB), (vec![10, 9, 8], true));
        assert_eq!(chosen(tenths(), 100, 0), (vec![], false));
    }

    #[test]
    fn what_is_wholly_needed_stays_unless_there_are_many_small_ones() {
        let small = |count: u8, len: u64| {
            let mut wasted = Wasted::default();
            (0..count).for_each(|number| wasted.note(&pack(number, len), 5, 5));
            wasted
        };
        assert_eq!(chosen(small(31, MIB), 0, u64::MAX), (vec![], false));
        assert_eq!(chosen(small(32, MIB), 0, u64::MAX).0.len(), 32);
        assert_eq!(chosen(small(32, MIB), 0, 10 * MIB), ((0..10).collect(), true));
        assert_eq!(chosen(small(100, 2 * MIB), 0, u64::MAX), (vec![], false));
        assert_eq!(chosen(small(32, MIB), 100, 0), (vec![], false));
    }

    #[test]
    fn of_very_many_the_worst_are_kept_in_mind() {
        let mut wasted = Wasted::default();
        let count = 5 * limits::REPACKED_PACKS_MAX as u64;
        for number in 0..count {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            let pack = ListedPack { object_type: ObjectType::Data, digest, len: 16 * MIB };
            wasted.note(&pack, number, count);
        }
        assert!(wasted.partly.len() <= 2 * limits::REPACKED_PACKS_MAX);
        let mut report = CollectReport::default();
        let chosen =
            wasted.choose(&RepackOptions { max_unused_percent: 0, max_bytes: u64::MAX }, &mut report);
        assert_eq!(chosen.len(), limits::REPACKED_PACKS_MAX);
        assert!(chosen.iter().all(|digest| digest[..5] == [0; 5]) && report.more_to_repack);
    }
}

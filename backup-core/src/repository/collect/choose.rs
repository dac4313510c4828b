//! Choosing packs: of everything that is needed one place is kept.

use super::mark::Needed;
use crate::Result;
use crate::format::segment::IndexRow;
use crate::report::DamagedObject;
use crate::repository::index::{Bits, Index};

/// Packs that are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) packs: Bits,
    /// Bytes of needed content in each pack, before compression.
    live: Vec<u64>,
    /// All bytes of content in each pack, before compression.
    all: Vec<u64>,
    /// Bytes of content in each pack that are needed, here or at another place of theirs.
    wanted: Vec<u64>,
    /// What is needed and has no place in a usable pack.
    pub(super) lost: Vec<DamagedObject>,
}

const LOST_MAX: usize = 100;

/// Keeps for each needed chunk, of each length that it stands in, one place in a pack that is `usable`. Of several places one in a
/// pack that is kept anyway, else one in the pack of which the largest share is needed: so what was stored anew, to free packs of
/// which little is needed, takes the place of what it was read from. Takes long where there is much: not for async code.
pub(super) fn choose(index: &Index, needed: &Needed, usable: &Bits) -> Result<Kept> {
    let packs = index.pack_count() as usize;
    let none = || vec![0; packs];
    let mut kept = Kept { live: none(), all: none(), wanted: none(), ..Kept::default() };
    // First those that leave no choice.
    each_place(index, &needed.chunks, |needed, places| {
        for row in places {
            add(&mut kept.all, row);
            if needed {
                add(&mut kept.wanted, row);
            }
        }
        let mut candidates = places.iter().filter(|row| usable.contains(row.pack));
        match (needed, candidates.next(), candidates.next()) {
            (true, Some(only), None) => {
                kept.packs.insert(only.pack);
                add(&mut kept.live, only);
            }
            (true, None, _) => {
                let chunk = places.first().map(|row| row.id);
                if let Some(chunk) = chunk.filter(|_| kept.lost.len() < LOST_MAX) {
                    kept.lost.push(DamagedObject {
                        object: format!("chunk {:032x}", chunk.0),
                        reason: "stands only in packs that are missing or were swept".into(),
                    });
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    each_place(index, &needed.chunks, |needed, places| {
        let candidates = || places.iter().filter(|row| usable.contains(row.pack));
        if needed && candidates().count() > 1 {
            let best = candidates().max_by_key(|row| {
                (kept.packs.contains(row.pack), kept.share_wanted(row.pack), std::cmp::Reverse(row.pack))
            });
            if let Some(best) = best {
                kept.packs.insert(best.pack);
                add(&mut kept.live, best);
            }
        }
        Ok(())
    })?;
    Ok(kept)
}

impl Kept {
    /// How many bytes of content of a pack are needed, and how many it has.
    pub(super) fn bytes_of(&self, pack: u32) -> (u64, u64) {
        let of = |bytes: &[u64]| bytes.get(pack as usize).copied().unwrap_or(0);
        (of(&self.live), of(&self.all))
    }

    /// Which share of a pack's content is needed, in parts of 2^32.
    fn share_wanted(&self, pack: u32) -> u64 {
        let of = |bytes: &[u64]| u128::from(bytes.get(pack as usize).copied().unwrap_or(0));
        let share = (of(&self.wanted) << 32).checked_div(of(&self.all)).unwrap_or(0);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

fn add(bytes: &mut [u64], row: &IndexRow) {
    if let Some(bytes) = bytes.get_mut(row.pack as usize) {
        *bytes = bytes.saturating_add(u64::from(row.len));
    }
}

/// Gives the places of each chunk, one length after the other, and whether it is needed.
pub(super) fn each_place(
    index: &Index,
    needed: &Bits,
    mut take: impl FnMut(bool, &[IndexRow]) -> Result<()>,
) -> Result<()> {
    let mut places: Vec<IndexRow> = Vec::new();
    let mut begin = 0_u64;
    let mut give = |places: &mut Vec<IndexRow>, begin: u64| -> Result<()> {
        // Nothing beyond was marked.
        let is_needed = u32::try_from(begin).is_ok_and(|begin| needed.contains(begin));
        places.sort_by_key(|row| row.len);
        for of_one_length in places.chunk_by(|one, other| one.len == other.len) {
            take(is_needed, of_one_length)?;
        }
        places.clear();
        Ok(())
    };
    for (at, row) in (0_u64..).zip(index.rows()) {
        let row = row?;
        if places.first().is_some_and(|first| first.id != row.id) {
            give(&mut places, begin)?;
            begin = at;
        }
        // A chunk has no more places than that, whatever segments claim.
        if places.len() < super::super::index::PLACES_MAX {
            places.push(row);
        }
    }
    if places.is_empty() { Ok(()) } else { give(&mut places, begin) }
}

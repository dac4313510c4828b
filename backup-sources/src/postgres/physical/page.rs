//! The checksum of a page, as the server computes it (`storage/checksum_impl.h`).
//!
//! A page's header holds 16 bits of a hash of the page with the place of those bits empty, mixed with the number of its block
//! in the relation: a page that was written to another place is found, too.

/// Sums that are computed beside each other, so that processors can do many at once.
const LANES: usize = 32;
const PRIME: u32 = 16_777_619;
/// Where the checksum stands in a page, and what else of the header matters here.
const CHECKSUM_AT: usize = 8;
const LOWER_AT: usize = 12;
const UPPER_AT: usize = 14;

/// What each sum starts with.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its checksum is that of its content at its place, or it is all zeroes, as pages are that were never written.
    Valid,
    /// It is neither.
    Invalid,
}

/// Judges the page of block number `block`, counted through all segment files of its fork.
pub(super) fn judge(page: &[u8], block: u32) -> Verdict {
    // A page whose header says that it was never written to has no checksum: then it must be empty.
    let is_new = u16_at(page, UPPER_AT) == 0;
    let valid = if is_new {
        page.iter().all(|byte| *byte == 0)
    } else {
        u16_at(page, CHECKSUM_AT) == checksum(page, block)
            && u16_at(page, LOWER_AT) <= u16_at(page, UPPER_AT)
            && usize::from(u16_at(page, UPPER_AT)) <= page.len()
    };
    if valid { Verdict::Valid } else { Verdict::Invalid }
}

/// The checksum that a page should have at the place `block`.
pub(super) fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = OFFSETS;
    for (number, row) in page.chunks_exact(LANES * 4).enumerate() {
        let mut words = [0_u32; LANES];
        let (quads, _) = row.as_chunks::<4>();
        for (word, bytes) in words.iter_mut().zip(quads) {
            *word = u32::from_ne_bytes(*bytes);
        }
        if number == 0 {
            // The checksum itself counts as zero: two bytes of the third word.
            let [_, _, word, ..] = &mut words;
            let [_, _, rest @ ..] = word.to_ne_bytes();
            let [a, b] = rest;
            *word = u32::from_ne_bytes([0, 0, a, b]);
        }
        mix(&mut sums, &words);
    }
    let nothing = [0; LANES];
    mix(&mut sums, &nothing);
    mix(&mut sums, &nothing);
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ block;
    // Never zero, which stands for a page without a checksum.
    u16::try_from(folded % 65_535).unwrap_or_default().wrapping_add(1)
}

fn mix(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

fn u16_at(page: &[u8], at: usize) -> u16 {
    let bytes = page.get(at..).and_then(|rest| rest.first_chunk::<2>());
    u16::from_ne_bytes(bytes.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut page: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(8192)
        .collect();
        page[LOWER_AT..LOWER_AT + 2].copy_from_slice(&100_u16.to_ne_bytes());
        page[UPPER_AT..UPPER_AT + 2].copy_from_slice(&4000_u16.to_ne_bytes());
        let sum = checksum(&page, 77);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_ne_bytes());
        page
    }

    #[test]
    fn a_page_is_valid_at_its_place_and_with_every_bit() {
        let mut page = page(1);
        assert_eq!(judge(&page, 77), Verdict::Valid);
        assert_eq!(judge(&page, 78), Verdict::Invalid);
        for at in (0..8192).step_by(61) {
            page[at] ^= 16;
            assert_eq!(judge(&page, 77), Verdict::Invalid, "byte {at}");
            page[at] ^= 16;
        }
    }

    #[test]
    fn a_page_of_zeroes_is_valid_and_one_that_only_claims_to_be_new_is_not() {
        let mut page = vec![0; 8192];
        assert_eq!(judge(&page, 5), Verdict::Valid);
        page[8000] = 1;
        assert_eq!(judge(&page, 5), Verdict::Invalid);
    }
}

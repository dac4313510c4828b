//! Data of three kinds, the same on every machine and in every run.

use std::fmt;

/// What the data is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Like source code and logs: zstd at level 3 leaves about a quarter.
    Compressible,
    /// Text, tables of numbers, zeros and random bytes in stretches of 4 to 260 KiB: more than half is left.
    Mixed,
    /// Random bytes, as media and archives are.
    Incompressible,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Compressible, Self::Mixed, Self::Incompressible];

    /// `len` bytes of this kind. Different seeds give different data.
    pub fn generate(self, len: usize, seed: u64) -> Vec<u8> {
        let mut dice = Dice::new(seed);
        let mut out = Vec::with_capacity(len);
        match self {
            Self::Compressible => Text::new().write(&mut dice, &mut out, len),
            Self::Incompressible => dice.bytes(&mut out, len),
            Self::Mixed => mixed(&mut dice, &mut out, len),
        }
        out
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compressible => "compressible",
            Self::Mixed => "mixed",
            Self::Incompressible => "incompressible",
        })
    }
}

fn mixed(dice: &mut Dice, out: &mut Vec<u8>, len: usize) {
    let text = Text::new();
    while out.len() < len {
        let stretch = (4096 + dice.below(256 * 1024)).min(len - out.len());
        match dice.below(20) {
            0..8 => text.write(dice, out, stretch),
            8..10 => out.resize(out.len() + stretch, 0),
            10..13 => numbers(dice, out, stretch),
            _ => dice.bytes(out, stretch),
        }
    }
}

/// A table of 16-byte rows: a counter, a small number, a random one.
fn numbers(dice: &mut Dice, out: &mut Vec<u8>, len: usize) {
    let end = out.len() + len;
    let mut row = dice.next();
    while out.len() < end {
        row = row.wrapping_add(1);
        out.extend_from_slice(&row.to_le_bytes());
        out.extend_from_slice(&(dice.next() & 0xff).to_le_bytes()[..4]);
        out.extend_from_slice(&dice.next().to_le_bytes()[..4]);
    }
    out.truncate(end);
}

/// Invented words, the frequent ones short, in lines.
struct Text {
    words: Vec<String>,
}

impl Text {
    const WORDS: usize = 65_536;
    const REPEATED_PERCENT: usize = 18;

    fn new() -> Self {
        const SYLLABLES: [&str; 32] = [
            "al", "be", "con", "da", "er", "fi", "ge", "ho", "in", "ja", "ke", "lo", "men", "no", "or",
            "pre", "qui", "ra", "se", "ti", "un", "ver", "wa", "ex", "ya", "zo", "st", "ch", "ou", "ly",
            "tion", "_",
        ];
        let mut dice = Dice::new(0);
        let words = (0..Self::WORDS)
            .map(|rank| {
                let syllables = 1 + rank.checked_ilog2().unwrap_or(0) as usize / 4 + dice.below(3);
                (0..syllables).map(|_| SYLLABLES[dice.below(SYLLABLES.len())]).collect()
            })
            .collect();
        Self { words }
    }

    fn write(&self, dice: &mut Dice, out: &mut Vec<u8>, len: usize) {
        let start = out.len();
        let end = start + len;
        let mut indent = 0;
        while out.len() < end {
            // Much of any source is said again nearby.
            let written = out.len() - start;
            if written > 4096 && dice.below(100) < Self::REPEATED_PERCENT {
                let from = out.len() - 1 - dice.below(written.min(64 * 1024) - 200);
                let until = (from + 20 + dice.below(160)).min(out.len());
                out.extend_from_within(from..until);
                continue;
            }
            indent = (indent + 1 + dice.below(3)).saturating_sub(2).min(6);
            out.resize(out.len() + indent * 4, b' ');
            for _ in 0..1 + dice.below(9) {
                // The chance of a word falls as its rank rises, as in any language.
                let bits = dice.below(1 + Self::WORDS.ilog2() as usize);
                let rank = dice.below(1 << bits);
                out.extend_from_slice(self.words[rank].as_bytes());
                out.extend_from_slice([" ", " ", " ", ".", "(", ": ", ", ", "::"][dice.below(8)].as_bytes());
            }
            out.push(b'\n');
        }
        out.truncate(end);
    }
}

/// A reproducible stream of numbers (splitmix64).
struct Dice {
    state: u64,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, evenly enough.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    fn bytes(&mut self, out: &mut Vec<u8>, len: usize) {
        let start = out.len();
        out.resize(start + len, 0);
        for piece in out[start..].chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use backup_core::transform::{Encoded, FrameContext, ObjectType, Transform, Zstd};

    use super::*;

    #[test]
    fn data_shrinks_as_its_kind_says() {
        let frame = FrameContext {
            chunks: 1,
            repository: &[0; 16],
            object_type: ObjectType::Data,
            salt: &[0; 32],
            ordinal: 0,
            plain_len: 0,
            associated_data: &[],
        };
        for (kind, percent) in
            [(Kind::Compressible, 25..36), (Kind::Mixed, 40..70), (Kind::Incompressible, 100..101)]
        {
            let data = kind.generate(8 << 20, 1);
            assert_eq!(data.len(), 8 << 20);
            let mut stored = 0;
            for piece in data.chunks(1 << 20) {
                let mut out = Vec::new();
                stored += match Zstd::default().encode(&frame, piece, &mut out).unwrap() {
                    Encoded::Applied => out.len(),
                    Encoded::Skipped => piece.len(),
                };
            }
            let left = stored * 100 / data.len();
            assert!(percent.contains(&left), "{kind}: {left}%");
        }
    }

    #[test]
    fn seeds_give_different_data_and_one_seed_the_same() {
        for kind in Kind::ALL {
            assert_eq!(kind.generate(100_000, 7), kind.generate(100_000, 7));
            assert_ne!(kind.generate(100_000, 7), kind.generate(100_000, 8));
        }
    }
}

//! What content looks like, by a sample.

/// A kind of content, as far as compression is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// Text with many digits: dumps of databases, logs, tables.
    Records,
    /// Other text, and what cannot be compressed anyway.
    Text,
    /// What has zeros: machine code, tables of numbers.
    Other,
}

impl Looks {
    pub(super) fn of(input: &[u8]) -> Self {
        const PIECES: usize = 32;
        const PIECE_BYTES: usize = 128;
        let pieces = input.chunks(input.len().div_ceil(PIECES).max(PIECE_BYTES));
        let (mut zeros, mut digits, mut seen) = (0_usize, 0_usize, 0_usize);
        for piece in pieces {
            let piece = piece.get(..PIECE_BYTES).unwrap_or(piece);
            zeros = zeros.saturating_add(piece.iter().filter(|byte| **byte == 0).count());
            digits = digits.saturating_add(piece.iter().filter(|byte| byte.is_ascii_digit()).count());
            seen = seen.saturating_add(piece.len());
        }
        if zeros.saturating_mul(64) >= seen {
            Self::Other
        } else if digits.saturating_mul(8) >= seen {
            Self::Records
        } else {
            Self::Text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_few_zeros_and_records_have_digits_wherever_they_are() {
        let text = "fn main() { println!(\"Grüße\"); }\n".repeat(50_000).into_bytes();
        for text in [&text, &text[..300], b"short"] {
            assert_eq!(Looks::of(text), Looks::Text);
        }
        let rows: String =
            (0..50_000).map(|n| format!("{n}\t2026-11-21 08:{:02}:00\talice\n", n % 60)).collect();
        assert_eq!(Looks::of(rows.as_bytes()), Looks::Records);
        let mut half = text.clone();
        half.extend((0..text.len() / 4).flat_map(|number| (number as u32).to_le_bytes()));
        for other in [&half, &[0; 4096][..], b""] {
            assert_eq!(Looks::of(other), Looks::Other);
        }
        // What cannot be compressed has a zero in 256 bytes; the faster way is as good.
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..1 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            })
            .collect();
        assert_eq!(Looks::of(&noise), Looks::Text);
    }
}

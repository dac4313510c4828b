//! Telling text from all else.

/// Whether a sample of `input` has as few zeros as text has. Machine code and tables of numbers have many.
pub(super) fn looks_like_text(input: &[u8]) -> bool {
    const PIECES: usize = 32;
    const PIECE_BYTES: usize = 128;
    let pieces = input.chunks(input.len().div_ceil(PIECES).max(PIECE_BYTES));
    let (mut zeros, mut seen) = (0_usize, 0_usize);
    for piece in pieces {
        let piece = piece.get(..PIECE_BYTES).unwrap_or(piece);
        zeros = zeros.saturating_add(piece.iter().filter(|byte| **byte == 0).count());
        seen = seen.saturating_add(piece.len());
    }
    zeros.saturating_mul(64) < seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_few_zeros_wherever_they_are() {
        let text = "fn main() { println!(\"Grüße\"); }\n".repeat(50_000).into_bytes();
        assert!(looks_like_text(&text) && looks_like_text(&text[..300]) && looks_like_text(b"short"));
        let mut half = text.clone();
        half.extend((0..text.len() / 4).flat_map(|number| (number as u32).to_le_bytes()));
        assert!(!looks_like_text(&half));
        assert!(!looks_like_text(&[0; 4096]) && !looks_like_text(b""));
        // What cannot be compressed has a zero in 256 bytes; the faster level is as good.
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..1 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            })
            .collect();
        assert!(looks_like_text(&noise));
    }
}

//! Deterministic data: random, like text, and mixed.

/// SplitMix64: quick and the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Incompressible bytes.
pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// Words in lines.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "backup", "restore", "the", "of", "a", "chunk", "snapshot", "pack", "index", "and", "verify", "key",
        "segment", "page", "entry", "name",
    ];
    let mut rng = Rng::new(seed);
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        let number = rng.next();
        out.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
        match number >> 60 {
            0 => out.extend_from_slice(format!(" {}\n", number >> 32 & 0xffff).as_bytes()),
            _ => out.push(b' '),
        }
    }
    out.truncate(len);
    out
}

/// Stretches of text, noise and zeros.
pub fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let part = (1 + rng.below(64 * 1024) as usize).min(len - out.len());
        match rng.below(3) {
            0 => out.extend(random(rng.next(), part)),
            1 => out.extend(text(rng.next(), part)),
            _ => out.resize(out.len() + part, 0),
        }
    }
    out
}

//! A transform of your own: readings of sensors, 4 bytes each, compress better when their bytes are sorted by place.
//!
//! ```text
//! cargo run -p library-examples --example custom_transform
//! ```
//!
//! A transform turns a frame's bytes into others and back, and may say that it does not pay. Its name, which starts with
//! `x-`, stands in every pack made with it. Whoever opens the repository registers it in a `TransformSet`; without, what
//! needs it is refused with an error that names it. `backup_core::testing::transform::conformance` (feature `testing`)
//! checks one of yours.

use std::sync::Arc;

use backup_core::repository::{BackupOptions, CreateOptions, Repository};
use backup_core::{
    Encoded, EntryName, Error, FrameContext, JobContext, RepositoryId, Result, Sink, SystemRandom, Transform,
    TransformSet, Unprotected, Zstd,
};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

/// Puts the first bytes of all 4-byte words together, then the second bytes, and so on.
#[derive(Debug)]
pub(crate) struct Shuffle4;

impl Transform for Shuffle4 {
    fn name(&self) -> &str {
        "x-shuffle4"
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        if input.len() < 8 {
            return Ok(Encoded::Skipped);
        }
        let (words, rest) = input.as_chunks::<4>();
        for place in 0..4 {
            output.extend(words.as_flattened().iter().skip(place).step_by(4));
        }
        output.extend_from_slice(rest);
        Ok(Encoded::Applied)
    }

    fn decode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, max: usize) -> Result<()> {
        // What is read may be damaged or made with bad intent: nothing is taken for granted, and `max` is never exceeded.
        if input.len() > max || input.len() < 8 {
            return Err(Error::corruption("shuffled bytes have a length that shuffling does not make"));
        }
        let (words, rest) = input.as_chunks::<4>();
        for word in 0..words.len() {
            output.extend(words.as_flattened().iter().skip(word).step_by(words.len()));
        }
        output.extend_from_slice(rest);
        Ok(())
    }
}

/// Readings that rise and fall slowly, as temperatures do.
pub(crate) fn readings(count: u32) -> Bytes {
    (0..count).flat_map(|n| (((f64::from(n) / 1000.0).sin() * 1e6 + 2e6) as u32).to_le_bytes()).collect()
}

/// The bytes stored for the readings without the transform and with it, and the readings as read back.
pub(crate) async fn run(readings: Bytes) -> Result<(u64, u64, Vec<u8>)> {
    let job = JobContext::new();
    let plain = vec![Arc::new(Zstd::default()) as Arc<dyn Transform>];
    let shuffled = vec![Arc::new(Shuffle4) as Arc<dyn Transform>, Arc::new(Zstd::default())];

    let mut stored = Vec::new();
    let mut back = Vec::new();
    for chain in [plain, shuffled] {
        let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
        let protection = Arc::new(Unprotected::new(RepositoryId::random(&SystemRandom)?));
        let known = TransformSet::builtin().with(Arc::new(Shuffle4));

        let options = CreateOptions { transforms: known.clone(), ..CreateOptions::default() };
        let repository = Repository::create(sink.clone(), protection.clone(), options, &job).await?;
        let options = BackupOptions { transforms: Some(chain), ..BackupOptions::default() };
        let source = MemorySource::new("sensors").with_file("readings", readings.clone())?;
        let report = repository.backup(&source, &options, &job).await?;
        stored.push(report.bytes_stored);

        // Somebody else, later: the transform is registered again.
        let repository = Repository::open(sink, protection, known, &job).await?;
        let id = report.snapshot.ok_or_else(|| Error::internal("no snapshot was made"))?;
        let snapshot = repository.snapshot(id, &job).await?;
        let entry = snapshot.entry(&EntryName::new("readings")?, &job).await?;
        let entry = entry.ok_or_else(|| Error::internal("the readings are not in the snapshot"))?;
        back.clear();
        let mut file = snapshot.open(&entry, &job).await?;
        file.read_to_end(&mut back).await.map_err(|e| Error::io("the readings could not be read", e))?;
    }
    let [plain, shuffled] = stored[..] else { return Err(Error::internal("two repositories were made")) };
    Ok((plain, shuffled, back))
}

#[tokio::main]
async fn main() -> Result<()> {
    let readings = readings(250_000);
    let (plain, shuffled, back) = run(readings.clone()).await?;
    println!("{} bytes of readings", readings.len());
    println!(
        "stored by zstd alone: {plain} bytes; shuffled before: {shuffled} bytes; read back equal: {}",
        back == readings
    );
    Ok(())
}

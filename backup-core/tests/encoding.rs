//! Decode and compare: what a transform spoils is found before anything of it is stored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use backup_core::repository::{BackupOptions, Repository};
use backup_core::testing::{Operation, RecordingSink};
use backup_core::transform::Encoded;
use backup_core::{ErrorKind, FrameContext, Result, Transform, TransformSet, Zstd};
use backup_sinks::MemorySink;
use common::{BOTH, SMALL, TestEntry, TestSource, create, random};

/// Turns every bit; where it meets a certain byte, it forgets one bit, or what it makes cannot be decoded.
#[derive(Debug)]
struct Faulty {
    refuses: bool,
}

impl Transform for Faulty {
    fn name(&self) -> &str {
        "x-faulty"
    }

    fn encode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>) -> Result<Encoded> {
        output.extend(input.iter().map(|byte| !byte));
        if let Some(at) = input.windows(6).position(|bytes| bytes == b"poison") {
            let last = output.len() - input.len() + at;
            output[last] ^= 0x10;
        }
        Ok(Encoded::Applied)
    }

    fn decode(&self, _: &FrameContext<'_>, input: &[u8], output: &mut Vec<u8>, _: usize) -> Result<()> {
        output.extend(input.iter().map(|byte| !byte));
        if self.refuses && output.windows(5).any(|bytes| bytes == b"oison") {
            return Err(backup_core::Error::corruption("cannot be decoded"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn trap_6_a_frame_that_does_not_decode_to_its_input_fails_the_job_before_its_pack_is_put() {
    for protect in BOTH {
        for refuses in [false, true] {
            let sink = Arc::new(RecordingSink::new(MemorySink::new()));
            let setup = create(sink.clone(), protect, SMALL).await;
            let faulty: Arc<dyn Transform> = Arc::new(Faulty { refuses });
            let transforms = TransformSet::builtin().with(faulty.clone());
            let repository = Repository::open(sink.clone(), setup.protection.clone(), transforms, &setup.job)
                .await
                .unwrap();
            let chains: [Vec<Arc<dyn Transform>>; 2] =
                [vec![faulty.clone()], vec![faulty.clone(), Arc::new(Zstd::default())]];
            for chain in chains {
                let options = BackupOptions {
                    transforms: Some(chain),
                    verify_encoding: true,
                    ..BackupOptions::default()
                };
                let mut content = random(1, 20_000);
                let clean = TestSource::new(vec![TestEntry::file("a", content.clone())]);
                repository.backup(&clean, &options, &setup.job).await.unwrap();
                let puts = || {
                    sink.calls()
                        .iter()
                        .filter(|c| c.operation == Operation::Put && c.key.starts_with("data/"))
                        .count()
                };
                let before = puts();
                content[10_000..10_006].copy_from_slice(b"poison");
                let poisoned = TestSource::new(vec![TestEntry::file("b", content)]);
                let error = repository.backup(&poisoned, &options, &setup.job).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
                assert!(error.to_string().contains("x-faulty"), "{error}");
                assert_eq!(puts(), before, "nothing of the pack is stored");
            }
        }
    }
}

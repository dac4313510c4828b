//! The whole: a backup into memory, the same again unchanged, and a restore that forgets what it reads.
#![allow(clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use backup_benches::{Kind, Nowhere};
use backup_core::limits::MIB;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, RestoreOptions};
use backup_core::{Entry, JobContext, Protection, Sink};
use backup_crypto::{Keyring, Recipient};
use backup_sinks::MemorySink;
use backup_sources::MemorySource;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const CONTENT_BYTES: usize = 64 * MIB;

/// Half of the content in one file, half in small ones, all with a stamp that lets an unchanged one be recognised.
fn source(kind: Kind) -> MemorySource {
    let content = kind.generate(CONTENT_BYTES, 1);
    let (large, small) = content.split_at(CONTENT_BYTES / 2);
    let entry = |name: String| Entry::file(name).expect("a name").with_stamp("1");
    let mut source = MemorySource::new("bench").with_entry(entry("large".to_owned()), large.to_vec());
    let (mut rest, mut number) = (small, 0);
    while !rest.is_empty() {
        // 1 to 64 KiB.
        let (file, others) = rest.split_at(rest.len().min(1024 << (number % 7)));
        source = source.with_entry(entry(format!("small/{:02}/{number:05}", number % 64)), file.to_vec());
        rest = others;
        number += 1;
    }
    source
}

async fn repository(job: &JobContext) -> Repository {
    let sink: Arc<dyn Sink> = Arc::new(MemorySink::new());
    let recipient = Recipient::key_file(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key file");
    let keyring: Arc<dyn Protection> = Keyring::create(&sink, &[recipient], job).await.expect("keys");
    Repository::create(sink, keyring, CreateOptions::default(), job).await.expect("a repository")
}

fn whole(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let job = JobContext::new();
    let options = BackupOptions::default();
    let mut group = criterion.benchmark_group("whole");
    group.throughput(Throughput::BytesDecimal(CONTENT_BYTES as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    for kind in Kind::ALL {
        let source = source(kind);
        let backup = |repository: Repository| {
            let report = runtime.block_on(repository.backup(&source, &options, &job)).expect("a backup");
            (repository, report)
        };
        let fresh = || runtime.block_on(repository(&job));
        group.bench_function(BenchmarkId::new("backup", kind), |bencher| {
            bencher.iter_batched(fresh, backup, BatchSize::PerIteration);
        });

        let (repository, first) = backup(fresh());
        group.bench_function(BenchmarkId::new("backup-unchanged", kind), |bencher| {
            bencher.iter(|| {
                let (_, report) = backup(repository.clone());
                assert_eq!(report.entries_unchanged, first.entries);
            });
        });

        let id = first.snapshot.expect("a snapshot");
        group.bench_function(BenchmarkId::new("restore", kind), |bencher| {
            bencher.iter(|| {
                let restored = runtime.block_on(async {
                    let snapshot = repository.snapshot(id, &job).await.expect("a snapshot");
                    repository
                        .restore(&snapshot, &Nowhere, &RestoreOptions::default(), &job)
                        .await
                        .expect("a restore")
                });
                assert_eq!(restored.bytes_written, CONTENT_BYTES as u64);
            });
        });
    }
}

criterion_group!(benches, whole);
criterion_main!(benches);

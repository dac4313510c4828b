//! The time of each stage of the hot path, on one thread.

use std::time::Duration;

use backup_benches::stages;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn measure(criterion: &mut Criterion) {
    let stages = stages::all();
    for stages in stages.chunk_by(|a, b| a.group == b.group) {
        let [first, ..] = stages else { continue };
        let mut group = criterion.benchmark_group(first.group);
        group.sample_size(20).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        for stage in stages {
            group.throughput(Throughput::BytesDecimal(stage.bytes as u64));
            group.bench_function(&*stage.name, |bencher| {
                let mut work = stage.prepare();
                bencher.iter(&mut work);
            });
        }
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);

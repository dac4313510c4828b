//! What a second backup costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Setup, keeping, local};

const PAGE: usize = 8192;

/// The relation files of a cluster at rest, for comparing pages.
fn relations(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for database in fs::read_dir(data.join("base")).unwrap() {
        let database = database.unwrap().path();
        for file in fs::read_dir(&database).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(data).unwrap().to_string_lossy().into_owned();
            if path.is_file() && name.rsplit('/').next().unwrap().starts_with(|c: char| c.is_ascii_digit()) {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_of_the_pages_changed_cost_about_what_they_take_compressed() {
    let cluster = keeping().config("max_wal_size = '4GB'\nshared_buffers = '128MB'").start();
    cluster.bench_init(10);
    cluster.checkpoint();
    let setup = Setup::new().await;
    let source = local(&cluster).build().unwrap();
    setup.backup(&source).await;
    let before = relations(cluster.data());

    let mut transactions = 0;
    let (mut changed, mut all);
    loop {
        cluster.bench(4, 25);
        transactions += 100;
        cluster.checkpoint();
        let after = relations(cluster.data());
        all = after.values().map(|bytes| bytes.len() / PAGE).sum::<usize>();
        changed = Vec::new();
        for (name, bytes) in &after {
            let old = before.get(name).map_or(&[][..], Vec::as_slice);
            for (number, page) in bytes.chunks(PAGE).enumerate() {
                if old.get(number * PAGE..number * PAGE + page.len()) != Some(page) {
                    changed.push(page.to_vec());
                }
            }
        }
        if changed.len() * 100 >= all * 5 {
            break;
        }
    }
    let stored_before = setup.sink.total_bytes();
    let report = setup.backup(&source).await;
    let stored = setup.sink.total_bytes() - stored_before;

    // The measure: those pages, each compressed by itself; a frame of a MiB of them; all of them in one piece.
    let squeeze = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap().len() as u64;
    let single: u64 = changed.iter().map(|page| squeeze(page)).sum();
    let together = changed.concat();
    let framed: u64 = together.chunks(1 << 20).map(squeeze).sum();
    let whole = squeeze(&together);
    let ratio = |base: u64| stored as f64 / base as f64;
    println!(
        "{transactions} transactions changed {} of {all} pages ({:.1}%); added {} bytes, stored {stored}\n\
         pages one by one {single} (x {:.2}), in frames of 1 MiB {framed} (x {:.2}), in one piece {whole} (x {:.2})",
        changed.len(),
        100.0 * changed.len() as f64 / all as f64,
        report.bytes_added,
        ratio(single),
        ratio(framed),
        ratio(whole),
    );
    // Compared with what the pages take as they are stored; one by one they take more.
    assert!(ratio(framed) <= 1.6, "{:.2}", ratio(framed));
}

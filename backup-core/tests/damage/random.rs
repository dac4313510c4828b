//! Random damage of random repositories: of each protection, function of chunk ids, chain of transforms, way of cutting, order
//! of entries and kind of object.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::format::log::{self, LogHead};
use backup_core::report::Outcome;
use backup_core::repository::{BackupOptions, CreateOptions, Repository, SetComponent, SnapshotSet};
use backup_core::{Protection, Random, Sink, SnapshotId, SystemRandom, Transform, Zstd};
use backup_crypto::{ChunkIdFunction, Keyring, KeyringOptions, Recipient};
use backup_sinks::MemorySink;
use bytes::Bytes;

use crate::common::{self, Protect, Rng, SMALL, Setup, TINY, TestEntry, TestSource, long, text, tree};
use crate::victim::{Damage, Victim, that_matter, try_all, unreferenced};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A repository of everything that the seed chooses.
async fn random_victim(rng: &mut Rng) -> Victim {
    let sink = MemorySink::new();
    let shared: Arc<dyn Sink> = Arc::new(sink.clone());
    let chunker = if rng.below(2) == 0 { TINY } else { SMALL };
    let setup = match rng.below(3) {
        0 => common::create(shared, Protect::Plain, chunker).await,
        1 => common::create(shared, Protect::Encrypted, chunker).await,
        _ => {
            let job = common::job();
            let options = KeyringOptions::default().with_chunk_ids(ChunkIdFunction::HmacSha256);
            let recipient = Recipient::key_file(KEY.as_bytes()).unwrap();
            let keyring = Keyring::create_with(&shared, &[recipient], &options, &job).await.unwrap();
            let options = CreateOptions { chunker, ..CreateOptions::default() };
            let repository = Repository::create(shared, keyring.clone(), options, &job).await.unwrap();
            Setup { repository, protection: keyring, job }
        }
    };
    let mut snapshots = Vec::new();
    for _ in 0..=rng.below(3) {
        let count = 1 + rng.below(30) as usize;
        let max = 1 << (6 + rng.below(7));
        let mut source = TestSource::new(tree(rng.next() % 4, count, max));
        source.trailing = vec![TestEntry::file("zz-label", text(rng.next(), rng.below(400) as usize))];
        source.position = vec![("lsn".into(), rng.next().to_string())];
        if rng.below(3) == 0 {
            source = source.shuffled(rng.next());
        }
        let zstd = || Arc::new(Zstd::default()) as Arc<dyn Transform>;
        let transforms = match rng.below(4) {
            0 => Some(Vec::new()),
            1 => Some(vec![zstd(), zstd()]),
            _ => None,
        };
        let options = BackupOptions { transforms, ..BackupOptions::default() };
        let report = setup.repository.backup(&source, &options, &setup.job).await.unwrap();
        snapshots.push((report.snapshot.unwrap(), source.expected()));
    }
    if rng.below(2) == 0 {
        let component = SetComponent {
            name: "files".into(),
            snapshot: Some(snapshots[0].0),
            outcome: Some(Outcome::Complete),
            reason: None,
            restore_order: 0,
        };
        let set = SnapshotSet {
            id: SnapshotId::random(&SystemRandom).unwrap(),
            name: "all".into(),
            time: setup.job.now(),
            outcome: Outcome::Complete,
            components: vec![component],
            tags: BTreeMap::new(),
        };
        setup.repository.create_set(&set, &setup.job).await.unwrap();
    }
    if rng.below(2) == 0 {
        put_log(&setup, &sink, rng).await;
    }
    setup.assert_clean().await;
    Victim { objects: that_matter(&sink).await, setup, snapshots }
}

async fn put_log(setup: &Setup, sink: &MemorySink, rng: &mut Rng) {
    let head = LogHead::new(
        "postgres",
        "7000000000000000001",
        "00000001",
        "000000010000000000000001",
        setup.job.now(),
    );
    let mut salt = [0; 32];
    SystemRandom.fill(&mut salt).unwrap();
    let content = text(rng.next(), rng.below(3_000) as usize);
    let protection: &dyn Protection = &*setup.protection;
    let (head, sealed) = log::seal(protection, &[], salt, head, &content).unwrap();
    sink.put(&head.key(0).unwrap(), sealed.bytes).await.unwrap();
}

/// One of the things that disks, stores and people do to an object; none if it comes to nothing.
fn random_damage(victim: &Victim, rng: &mut Rng) -> Option<Damage> {
    let keys: Vec<&String> = victim.objects.keys().collect();
    let key = keys[rng.below(keys.len() as u64) as usize].clone();
    let bytes = &victim.objects[&key];
    let at = rng.below(bytes.len() as u64) as usize;
    let mut changed = bytes.to_vec();
    match rng.below(9) {
        0 => changed[at] ^= 1 << rng.below(8),
        1 => changed[at] = rng.next() as u8,
        2 => changed.truncate(at),
        3 => changed.extend((0..=rng.below(40)).map(|_| rng.next() as u8)),
        // Sectors of zeros, which a crash leaves, or of something else.
        4 => {
            let end = (at + 512).min(changed.len());
            changed[at..end].fill(0);
        }
        5 => {
            let end = (at + 512).min(changed.len());
            rng.fill(&mut changed[at..end]);
        }
        6 => drop(changed.remove(at)),
        7 => {
            let other = keys[rng.below(keys.len() as u64) as usize].clone();
            return (victim.objects[&other] != *bytes).then_some(Damage::Swap(key, other));
        }
        _ => return (!unreferenced(&key)).then_some(Damage::Replace(key, None)),
    }
    (changed != bytes[..]).then(|| Damage::Replace(key, Some(Bytes::from(changed))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_damage_of_random_repositories_is_detected_and_never_restored() {
    let chosen = std::env::var("BACKUP_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = chosen.map_or(0..if long() { 1_000 } else { 16 }, |seed| seed..seed + 1);
    let mut count = 0;
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let victim = random_victim(&mut rng).await;
        let damages: Vec<Damage> = (0..60).filter_map(|_| random_damage(&victim, &mut rng)).collect();
        count += damages.len();
        try_all(format!("BACKUP_SEED={seed}: random damage"), victim, damages, 8).await;
    }
    println!("{count} random damages detected");
}

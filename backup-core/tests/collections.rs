//! A writer of this version does not know collections, and stops where one was begun.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::report::Outcome;
use backup_core::repository::{SnapshotSet, VerifyLevel};
use backup_core::testing::{Operation, RecordingSink};
use backup_core::{ErrorKind, ObjectKey, Sink, SnapshotId, SystemRandom, Timestamp};
use backup_sinks::MemorySink;
use common::{Protect, SMALL, TestSource, create, tree};

#[tokio::test]
async fn a_writer_stops_where_a_collection_was_begun_and_a_reader_goes_on() {
    for key in ["control/collections/0/open", "control/collections/12/condemned/3"] {
        let sink = Arc::new(RecordingSink::new(MemorySink::new()));
        let setup = create(sink.clone(), Protect::Plain, SMALL).await;
        let source = TestSource::new(tree(1, 50, 2000));
        let id = setup.store(&source).await;
        sink.put(&ObjectKey::new(key).unwrap(), bytes::Bytes::from_static(b"of a later version"))
            .await
            .unwrap();
        let puts = || sink.calls().iter().filter(|call| call.operation == Operation::Put).count();
        for setup in [setup.clone(), setup.reopen(sink.clone()).await.unwrap()] {
            let before = puts();
            let error = setup.backup(&source).await.unwrap_err();
            assert_eq!((error.kind(), error.object()), (ErrorKind::Unsupported, Some(key)));
            assert_eq!(puts() - before, 1, "nothing but its session was put");
            let error = setup.repository.repair_index(false, &setup.job).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let set = SnapshotSet {
                id: SnapshotId::random(&SystemRandom).unwrap(),
                name: "all".into(),
                time: Timestamp::new(0, 0),
                outcome: Outcome::Complete,
                components: Vec::new(),
                tags: BTreeMap::new(),
            };
            let before = puts();
            assert_eq!(
                setup.repository.create_set(&set, &setup.job).await.unwrap_err().kind(),
                ErrorKind::Unsupported
            );
            assert_eq!(puts(), before);
            setup.assert_restores(id, &source).await;
            assert!(setup.verify(VerifyLevel::Content).await.unwrap().is_clean());
        }
    }
}

#[tokio::test]
async fn looking_for_collections_costs_an_unchanged_backup_no_request() {
    let sink = Arc::new(RecordingSink::new(MemorySink::new()));
    let setup = create(sink.clone(), Protect::Plain, SMALL).await;
    let source = TestSource::new(tree(1, 50, 2000).into_iter().map(common::TestEntry::stamped).collect());
    setup.store(&source).await;
    setup.store(&source).await;
    let before = sink.calls().len();
    setup.store(&source).await;
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    for call in sink.calls().iter().skip(before).filter(|call| call.operation == Operation::List) {
        *lists.entry(call.key.clone()).or_default() += 1;
    }
    println!("{lists:?}");
    assert_eq!(lists.get("control/"), Some(&1));
}

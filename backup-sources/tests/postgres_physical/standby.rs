//! Standbys as sources.

use std::sync::Arc;

use backup_core::ErrorKind;

use crate::exact::Meddling;
use crate::{Setup, both, check_pages, end, keeping, local, sums};

#[tokio::test(flavor = "multi_thread")]
async fn trap_35_a_standby_is_backed_up_beside_its_replay() {
    let primary = keeping().config("full_page_writes = on").start();
    primary.tablespace("more");
    primary.bench_init_with(2, &["--tablespace=more"]);
    let standby = primary.standby();
    standby.catch_up(&primary);
    let setup = Setup::new().await;
    for source in both(&standby) {
        let load = primary.load(3);
        let report = setup.backup(&source).await;
        end(load, &primary);
        let position = setup.position(&report).await;
        assert_eq!((&*position["from"], &*position["timeline"]), ("standby", "1"));
        let names = setup.entries(&report).await;
        assert!(!names.iter().any(|(name, _)| name == "standby.signal"), "a copy would follow the primary");
        let expected = sums(&primary);
        let restored = setup.restore(&report).await;
        restored.verify(&standby);
        // The primary has the log up to now, of which the backup needs a part.
        let (server, _files) = restored.start(&primary);
        assert_eq!(sums(&server), expected);
        assert!(server.log().contains("consistent recovery state reached"));
        check_pages(&server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_35_a_standby_that_is_promoted_meanwhile_fails_its_backup() {
    let primary = keeping().start();
    primary.bench_init(1);
    let setup = Setup::new().await;
    for over_sql in [false, true] {
        let standby = Arc::new(primary.standby());
        standby.catch_up(&primary);
        let [local, sql] = both(&standby);
        let promoted = standby.clone();
        let meddle = Arc::new(move || promoted.promote());
        let source = if over_sql { sql } else { local };
        let error = setup.try_backup(&Meddling { source, meddle }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.message().contains("promoted"), "{error}");
        assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_the_new_primary_is_backed_up_on_its_timeline() {
    let primary = keeping().start();
    primary.bench_init(1);
    let standby = primary.standby();
    standby.catch_up(&primary);
    standby.promote();
    standby.bench(2, 50);
    let setup = Setup::new().await;
    let report = setup.backup(&local(&standby).build().unwrap()).await;
    let position = setup.position(&report).await;
    assert_eq!((&*position["timeline"], &*position["log_timeline"]), ("2", "00000002"));
    assert!(position["start_segment"].starts_with("00000002"));
    let expected = sums(&standby);
    let restored = setup.restore(&report).await;
    restored.verify(&standby);
    let (server, _files) = restored.start(&standby);
    assert_eq!(sums(&server), expected);
}

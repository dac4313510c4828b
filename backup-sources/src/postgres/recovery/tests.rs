//! Plans, from inventories made by hand.

use std::collections::BTreeMap;

use backup_core::{Error, ErrorKind, Timestamp};

use super::*;
use crate::postgres::wal::{MadeTablespace, SegmentName, SegmentSize};
use crate::postgres::{Lsn, Timeline};

const CLUSTER: u64 = 7412;
const MIB16: u64 = 16 << 20;

fn size() -> SegmentSize {
    SegmentSize::default()
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_795_161_600 + second, 0)
}

/// A backup that begins in the segment `first` of a timeline and ends within the next one, at second 10 * (first + 1).
pub(super) fn base(timeline: u32, first: u64) -> BaseBackup {
    BaseBackup {
        id: format!("base-{timeline}-{first}"),
        system_identifier: CLUSTER,
        timeline: Timeline::new(timeline),
        start_lsn: Lsn::new(first * MIB16 + 0x28),
        stop_lsn: Lsn::new((first + 1) * MIB16 + 0x100),
        start_time: at(10 * first as i64),
        stop_time: at(10 * (first as i64 + 1)),
        server_version: 150_018,
        block_bytes: 8192,
        segment_size: size(),
        data_checksums: true,
        from_standby: false,
        tablespaces: BTreeMap::new(),
        damaged_pages: 0,
        bytes: 1000,
    }
}

/// A segment in whose ten seconds two transactions end, and at whose middle a restore point stands.
fn segment(number: u64) -> LogSegment {
    let mut facts = SegmentFacts {
        valid_to: Some(Lsn::new((number + 1) * MIB16 - 0x100)),
        first_time: Some(at(10 * number as i64 + 1)),
        last_time: Some(at(10 * number as i64 + 9)),
        restore_points: vec![RestorePoint {
            name: format!("point-{number}"),
            lsn: Lsn::new(number * MIB16 + MIB16 / 2),
            time: None,
        }],
        ..SegmentFacts::default()
    };
    facts.ended.insert(1000 + 2 * number as u32);
    facts.ended.insert(1001 + 2 * number as u32);
    LogSegment::whole().with_facts(facts)
}

pub(super) fn log(timelines: &[(u32, std::ops::RangeInclusive<u64>, &str)]) -> LogInventory {
    let mut inventory = LogInventory::default();
    for (timeline, numbers, history) in timelines {
        let timeline = Timeline::new(*timeline);
        for number in numbers.clone() {
            let name = SegmentName::numbered(timeline, number, size());
            inventory.add_segment(CLUSTER, size(), name, segment(number));
        }
        if !history.is_empty() {
            inventory.add_history(CLUSTER, size(), timeline, history);
        }
    }
    inventory
}

fn remove(inventory: &mut LogInventory, timeline: u32, number: u64) {
    let log = inventory.lineage(CLUSTER, size());
    log.timelines.get_mut(&Timeline::new(timeline)).unwrap().segments.remove(&number).unwrap();
}

pub(super) fn plan_of(
    bases: &[BaseBackup],
    inventory: &LogInventory,
    target: &str,
) -> Result<RecoveryPlan, Refused> {
    let target = target.parse().unwrap();
    RecoveryPlan::make(&request(bases, inventory, &target))
}

fn request<'a>(
    bases: &'a [BaseBackup],
    inventory: &'a LogInventory,
    target: &'a RecoveryTarget,
) -> PlanRequest<'a> {
    PlanRequest {
        bases,
        inventory,
        target,
        place: None,
        programs: Some(15),
        standby: false,
        allow_unproven: false,
        speed: Speed::default(),
    }
}

fn why(refused: Result<RecoveryPlan, Refused>) -> String {
    let refused = refused.unwrap_err();
    let error = Error::from(refused.clone());
    assert!(
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::Corruption),
        "{error}"
    );
    refused.reasons.iter().map(|reason| format!("{reason:?}\n")).collect()
}

fn runs(plan: &RecoveryPlan) -> Vec<(u32, u64, u64)> {
    let run =
        |run: &SegmentRun| (run.first.timeline().get(), run.first.number(size()), run.last.number(size()));
    plan.segments.iter().map(run).collect()
}

#[test]
fn the_newest_base_that_leads_there_is_taken_and_the_segments_end_at_the_target() {
    let inventory = log(&[(1, 1..=9, "")]);
    let bases = [base(1, 1), base(1, 5)];
    let cases = [
        ("latest", 5, 9),
        ("immediate", 5, 6),
        ("time:2026-11-20T08:01:15Z", 5, 7),
        ("time:2026-11-20T08:00:25Z", 1, 2),
        ("lsn:0/8000000", 5, 8),
        ("lsn:0/3000000", 1, 3),
        ("xid:1016", 5, 8),
        // The epoch does not count.
        ("xid:4294968304", 1, 4),
        ("name:point-7", 5, 7),
        ("name:point-3", 1, 3),
    ];
    for (target, first, last) in cases {
        let plan =
            plan_of(&bases, &inventory, target).unwrap_or_else(|refused| panic!("{target}: {refused}"));
        assert_eq!(runs(&plan), [(1, first, last)], "{target}");
        assert!(plan.reached.proof.is_some() && plan.notes.is_empty(), "{plan:?}");
        assert_eq!(plan.log_bytes, (last - first + 1) * MIB16);
    }
}

#[test]
fn trap_37_a_target_before_the_backups_end_or_beyond_the_log_is_refused() {
    let inventory = log(&[(1, 1..=4, "")]);
    let bases = [base(1, 1)];
    for target in ["time:2026-11-20T08:00:19.999999Z", "lsn:0/20000FF", "xid:1002", "name:point-1"] {
        assert!(why(plan_of(&bases, &inventory, target)).contains("BeforeBackupEnd"), "{target}");
    }
    for target in ["time:2026-11-20T08:00:49Z", "lsn:0/4FFFF01", "lsn:FFFF/0", "xid:7777", "name:nobody"] {
        assert!(why(plan_of(&bases, &inventory, target)).contains("NotReached"), "{target}");
    }
    // Replay stops in front of what happened exactly then, if that is not wanted.
    let target = RecoveryTarget::time(at(49)).exclusive();
    RecoveryPlan::make(&request(&bases, &inventory, &target)).unwrap();
    let error = Error::from(plan_of(&bases, &inventory, "time:2026-11-20T09:00:00Z").unwrap_err());
    assert!(error.to_string().contains("its last transaction ended at 2026-11-20T08:00:49Z"), "{error}");
}

#[test]
fn trap_37_a_transaction_that_ends_in_the_backups_last_segment_before_the_backup_is_refused() {
    // The backup ends in segment 2, at its byte 0x100; the transactions 1004 and 1005 end in that segment.
    let mut inventory = log(&[(1, 1..=4, "")]);
    let bases = [base(1, 1)];
    assert_eq!(
        runs(&plan_of(&bases, &inventory, "xid:1004").unwrap()),
        [(1, 1, 2)],
        "nobody has looked so closely"
    );
    let timelines = &mut inventory.lineage(CLUSTER, size()).timelines;
    let segment = timelines.get_mut(&Timeline::FIRST).unwrap().segments.get_mut(&2).unwrap();
    let ends = [(1004, 2 * MIB16 + 0xF8), (1005, 2 * MIB16 + 0x100)];
    segment.facts.as_mut().unwrap().ended_at = ends.map(|(xid, lsn)| (xid, Lsn::new(lsn))).into();
    assert!(why(plan_of(&bases, &inventory, "xid:1004")).contains("BeforeBackupEnd"));
    assert_eq!(runs(&plan_of(&bases, &inventory, "xid:1005").unwrap()), [(1, 1, 2)]);
    // An earlier base backup leads there.
    let bases = [base(1, 1), base(1, 0)];
    let first = SegmentName::numbered(Timeline::FIRST, 0, size());
    inventory.add_segment(CLUSTER, size(), first, self::segment(0));
    assert_eq!(plan_of(&bases, &inventory, "xid:1004").unwrap().base.id, "base-1-0");
}

#[test]
fn a_target_that_nobody_has_looked_for_is_not_proven() {
    let mut inventory = log(&[(1, 1..=4, "")]);
    for segment in
        inventory.lineage(CLUSTER, size()).timelines.get_mut(&Timeline::FIRST).unwrap().segments.values_mut()
    {
        segment.facts = None;
    }
    let bases = [base(1, 1)];
    for target in ["time:2026-11-20T08:00:35Z", "xid:1005", "name:point-3", "lsn:0/4000100"] {
        assert!(why(plan_of(&bases, &inventory, target)).contains("NotProven"), "{target}");
        let parsed = target.parse().unwrap();
        let trusting = PlanRequest { allow_unproven: true, ..request(&bases, &inventory, &parsed) };
        let plan = RecoveryPlan::make(&trusting).unwrap();
        assert!(plan.reached.proof.is_none() && !plan.notes.is_empty());
        assert_eq!(runs(&plan), [(1, 1, 4)], "{target}");
    }
    // A segment after it is proof enough for a position.
    assert_eq!(runs(&plan_of(&bases, &inventory, "lsn:0/3000100").unwrap()), [(1, 1, 4)]);
    plan_of(&bases, &inventory, "latest").unwrap();
}

#[test]
fn gaps_damage_and_beginnings_on_the_way_are_refused_by_name() {
    let bases = [base(1, 1)];
    for (number, target) in
        [(2, "immediate"), (3, "latest"), (3, "name:point-5"), (1, "latest"), (4, "lsn:0/5000000")]
    {
        let mut inventory = log(&[(1, 1..=6, "")]);
        remove(&mut inventory, 1, number);
        let found = why(plan_of(&bases, &inventory, target));
        let name = SegmentName::numbered(Timeline::FIRST, number, size()).to_string();
        assert!(found.contains("MissingSegments") && found.contains(&name), "{target}: {found}");
    }
    let mut inventory = log(&[(1, 1..=6, "")]);
    let name = SegmentName::numbered(Timeline::FIRST, 3, size());
    inventory.add_segment(CLUSTER, size(), name, LogSegment::damaged("its checksum does not fit"));
    let found = why(plan_of(&bases, &inventory, "latest"));
    assert!(found.contains("DamagedSegment") && found.contains("0000000003"), "{found}");
    plan_of(&bases, &inventory, "immediate").unwrap();
    inventory.add_segment(CLUSTER, size(), name, LogSegment::beginning(4096));
    assert!(why(plan_of(&bases, &inventory, "latest")).contains("IncompleteSegment"));
    // At the end it is what there is.
    for number in 4..=6 {
        remove(&mut inventory, 1, number);
    }
    assert_eq!(runs(&plan_of(&bases, &inventory, "latest").unwrap()), [(1, 1, 3)]);
    inventory.add_segment(
        CLUSTER,
        size(),
        SegmentName::numbered(Timeline::FIRST, 2, size()),
        LogSegment::beginning(0x80),
    );
    remove(&mut inventory, 1, 3);
    assert!(
        why(plan_of(&bases, &inventory, "latest")).contains("IncompleteSegment"),
        "it ends before the backup does"
    );
}

#[test]
fn a_log_that_makes_a_tablespace_is_replayed_only_where_its_directory_is_free() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("fast");
    let mut inventory = log(&[(1, 1..=6, "")]);
    let timelines = &mut inventory.lineage(CLUSTER, size()).timelines;
    let segment = timelines.get_mut(&Timeline::FIRST).unwrap().segments.get_mut(&4).unwrap();
    let lsn = Lsn::new(4 * MIB16 + 0x1000);
    let made = MadeTablespace { oid: 16_400, directory: directory.display().to_string(), lsn };
    segment.facts.as_mut().unwrap().tablespaces = vec![made.clone()];
    let bases = [base(1, 1), base(1, 5)];
    let survey = Place::new(root.path().join("data")).survey(&bases).unwrap();
    let plan = |bases: &[BaseBackup], target: &str| {
        let target = target.parse().unwrap();
        RecoveryPlan::make(&PlanRequest { place: Some(&survey), ..request(bases, &inventory, &target) })
    };
    let early = &bases[..1];
    assert!(why(plan(early, "latest")).contains("TablespaceMade"), "the server would not find it");
    // It may be that of the cluster that wrote the log, which runs.
    std::fs::create_dir_all(directory.join("PG_15_202209061/5")).unwrap();
    for target in ["latest", "name:point-5", "lsn:0/4001000"] {
        assert!(why(plan(early, target)).contains("TablespaceMade"), "{target}");
    }
    for target in ["immediate", "lsn:0/3000000", "lsn:0/4000FFF", "name:point-3"] {
        assert!(plan(early, target).unwrap().made_tablespaces.is_empty(), "{target}");
    }
    assert!(plan(&bases, "latest").unwrap().made_tablespaces.is_empty(), "the newer backup has it");
    std::fs::remove_dir_all(directory.join("PG_15_202209061")).unwrap();
    let plan = plan(early, "latest").unwrap();
    assert_eq!(plan.made_tablespaces, [made]);
    assert!(plan.notes.iter().any(|note| note.contains("/fast")), "{:?}", plan.notes);
}

#[test]
fn trap_28_a_recorded_gap_says_why() {
    let mut inventory = log(&[(1, 1..=6, "")]);
    remove(&mut inventory, 1, 3);
    inventory.lineage(CLUSTER, size()).gaps.push(LogGap {
        timeline: Timeline::FIRST,
        from: Lsn::new(3 * MIB16),
        to: None,
        reason: "the server gave up the slot".into(),
    });
    assert!(why(plan_of(&[base(1, 1)], &inventory, "latest")).contains("gave up the slot"));
    // A base behind it needs nothing of it.
    plan_of(&[base(1, 1), base(1, 4)], &inventory, "latest").unwrap();
}

#[test]
fn another_clusters_log_is_refused() {
    let mut inventory = log(&[(1, 1..=6, "")]);
    let own = inventory.lineages.remove(&CLUSTER).unwrap();
    inventory.lineages.insert(99, own);
    assert!(why(plan_of(&[base(1, 1)], &inventory, "latest")).contains("WrongLineage"));
    assert!(why(plan_of(&[base(1, 1)], &LogInventory::default(), "latest")).contains("WrongLineage"));
    assert!(why(plan_of(&[], &inventory, "latest")).contains("NoBase"));
    let inventory = log(&[(1, 1..=6, "")]);
    let target = RecoveryTarget::latest();
    let bases = [base(1, 1)];
    let other = PlanRequest { programs: Some(16), ..request(&bases, &inventory, &target) };
    assert!(why(RecoveryPlan::make(&other)).contains("WrongVersion"));
}

/// Timelines 1, 4 and 9: two promotions, after which the numbers jump.
fn promoted() -> LogInventory {
    log(&[
        (1, 1..=4, ""),
        (4, 4..=6, "1\t0/4800000\tno recovery target specified\n"),
        (9, 6..=8, "1\t0/4800000\tx\n4\t0/6800000\tno recovery target specified\n"),
    ])
}

#[test]
fn the_way_leads_across_promotions_whose_numbers_jump() {
    let inventory = promoted();
    let bases = [base(1, 1)];
    let plan = plan_of(&bases, &inventory, "latest").unwrap();
    assert_eq!((plan.timeline.get(), runs(&plan)), (9, vec![(1, 1, 3), (4, 4, 5), (9, 6, 8)]));
    let target = RecoveryTarget::latest();
    let on = |timeline| {
        let target = target.clone().on(timeline);
        RecoveryPlan::make(&request(&bases, &inventory, &target)).map(|plan| runs(&plan))
    };
    assert_eq!(on(TargetTimeline::Current).unwrap(), [(1, 1, 4)]);
    assert_eq!(on(TargetTimeline::Number(Timeline::new(4))).unwrap(), [(1, 1, 3), (4, 4, 6)]);
    assert!(
        on(TargetTimeline::Number(Timeline::new(5)))
            .unwrap_err()
            .to_string()
            .contains("nothing of timeline 5")
    );
    // A base of a branch that was left.
    let left = [base(1, 4)];
    let refused = RecoveryPlan::make(&request(
        &left,
        &inventory,
        &target.clone().on(TargetTimeline::Number(Timeline::new(4))),
    ));
    assert!(why(refused).contains("NotAnAncestor"));
    // Its own is the newest that it leads to, and the server would look there for what was never written.
    let plan =
        plan_of(&[base(1, 3)], &log(&[(1, 3..=5, ""), (2, 4..=7, "1\t0/4000050\tx\n")]), "latest").unwrap();
    assert_eq!((plan.timeline.get(), runs(&plan)), (1, vec![(1, 3, 5)]));
}

#[test]
fn trap_38_histories_that_are_missing_and_numbers_that_jump_are_refused() {
    let bases = [base(1, 1)];
    let mut inventory = promoted();
    let log = inventory.lineage(CLUSTER, size());
    log.timelines.get_mut(&Timeline::new(9)).unwrap().history = LogHistory::Missing;
    let found = why(plan_of(&bases, &inventory, "latest"));
    assert!(found.contains("MissingHistory") && found.contains("00000009"), "{found}");
    inventory.add_history(CLUSTER, size(), Timeline::new(9), "nonsense");
    assert!(why(plan_of(&bases, &inventory, "latest")).contains("DamagedHistory"));
    inventory.add_history(CLUSTER, size(), Timeline::new(9), "9 0/4800000 x");
    assert!(why(plan_of(&bases, &inventory, "latest")).contains("DamagedHistory"));
    // A standby counts up by one and stays where there is none.
    let (inventory, target) = (promoted(), RecoveryTarget::latest());
    let standby = PlanRequest { standby: true, ..request(&bases, &inventory, &target) };
    assert!(why(RecoveryPlan::make(&standby)).contains("TimelineJump"));
    let target = target.on(TargetTimeline::Number(Timeline::new(9)));
    let standby = PlanRequest { standby: true, ..request(&bases, &inventory, &target) };
    assert!(RecoveryPlan::make(&standby).unwrap().standby);
}

#[test]
fn trap_41_a_newer_timeline_is_not_a_newer_backup() {
    // Timeline 2 was abandoned; 1 went on.
    let inventory = log(&[(1, 1..=9, ""), (2, 3..=5, "1\t0/3800000\tx\n")]);
    let bases = [base(1, 7), base(2, 3)];
    let plan = plan_of(&bases, &inventory, "latest").unwrap();
    assert_eq!((plan.base.id.as_str(), runs(&plan)), ("base-1-7", vec![(1, 7, 9)]));
    let target = RecoveryTarget::latest().on(TargetTimeline::Number(Timeline::new(2)));
    let plan = RecoveryPlan::make(&request(&bases, &inventory, &target)).unwrap();
    assert_eq!((plan.base.id.as_str(), runs(&plan)), ("base-2-3", vec![(2, 3, 5)]));
}

#[test]
fn plans_and_refusals_are_written_and_read() {
    let plan = plan_of(&[base(1, 1)], &promoted(), "name:point-8").unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RecoveryPlan>(&text).unwrap(), plan);
    let refused = plan_of(&[base(1, 1)], &promoted(), "name:nobody").unwrap_err();
    let text = serde_json::to_string(&refused).unwrap();
    assert_eq!(serde_json::from_str::<Refused>(&text).unwrap(), refused);
}

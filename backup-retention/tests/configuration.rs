//! Retention as it stands in configurations: the deployments, and nonsense.
#![allow(clippy::unwrap_used)]

mod common;

use backup_core::testing::retention::facts;
use backup_retention::RetentionConfig;
use common::{kept_times, time};

fn parse(text: &str) -> Result<RetentionConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn what_the_deployments_ask_for_can_be_said() {
    for text in [
        "keep_within = '30d'",
        "grandfather_father_son = { daily = 7, weekly = 4, monthly = 12, yearly = 5 }\ngroup_by = ['tenant']",
        "keep_weekly = 4\nkeep_monthly = 12\nkeep_yearly = 5\nfirst_weekday = 'sunday'\n\
         [[overrides]]\nlabel = 'incremental'\npolicy = { keep_within = '30d' }\n\
         [[overrides]]\nlabel = 'differential'\npolicy = { keep_within = '24h', allow_empty = true }\n\
         [[overrides]]\ntenant = 'financial'\npolicy = { keep_within = '7y' }",
        "keep_within = '7d'\nkeep_within_daily = '30d'\nkeep_within_weekly = '1y'\ntime_zone = 'Europe/Zurich'",
        "keep_last = 30\n[[overrides]]\nlabel = 'configs'\npolicy = { keep_all = true }",
        "keep_yearly = 'all'\nkeep_tags = ['hold', 'reason=legal']\ngroup_by = []",
    ] {
        let config = parse(text).unwrap();
        config.build().unwrap();
        let again: RetentionConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }
}

#[test]
fn nonsense_is_refused_with_words() {
    for (text, expected) in [
        ("", "keep_daily = 7"),
        ("time_zone = 'UTC'", "no rule"),
        ("keep_daily = 0", "keep_daily = 0 keeps nothing"),
        ("keep_last = 0", "keep_last = 0 keeps nothing"),
        ("keep_daily = -1", "a number of periods, or \"all\""),
        ("keep_daily = 'some'", "a number of periods, or \"all\""),
        ("keep_daily = 99999999999", "a number of periods, or \"all\""),
        ("keep_dayly = 7", "unknown field `keep_dayly`"),
        ("keep_within = 90", "string"),
        ("keep_within = '90'", "write it like 90d"),
        ("keep_daily = 7\ntime_zone = 'Mars/Olympus'", "time_zone: `Mars/Olympus` is not a time zone"),
        ("keep_daily = 7\nfirst_weekday = 'Someday'", "unknown variant"),
        ("keep_daily = 7\ngroup_by = ['colour']", "take source, host, label, tenant or tag:NAME"),
        ("keep_daily = 7\ngroup_by = ['tag:']", "take source, host, label, tenant or tag:NAME"),
        ("keep_tags = ['=x']", "names no tag"),
        ("grandfather_father_son = {}", "keeps nothing"),
        ("grandfather_father_son = { dayly = 1 }", "unknown field `dayly`"),
        (
            "keep_daily = 7\n[[overrides]]\npolicy = { keep_all = true }",
            "overrides[0]: say what it applies to",
        ),
        ("keep_daily = 7\n[[overrides]]\nlabel = 'x'\npolicy = { }", "overrides[0]: this policy has no rule"),
        (
            "keep_daily = 7\n[[overrides]]\nlabel = 'x'\npolicy = { keep_last = 1, group_by = [] }",
            "overrides[0]: group_by",
        ),
        ("keep_daily = 7\n[[overrides]]\nlabel = 'x'", "missing field `policy`"),
    ] {
        let error =
            parse(text).and_then(|config| config.build().map(|_| ()).map_err(|error| error.to_string()));
        let error = error.expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn overrides_take_the_time_zone_of_the_policy_around_them() {
    let config = parse(
        "keep_last = 1\ntime_zone = 'Europe/Zurich'\n[[overrides]]\nlabel = 'x'\npolicy = { keep_daily = 1 }",
    );
    let policy = config.unwrap().build().unwrap();
    // One day in Zurich, two in UTC.
    let mut snapshots = common::at(&["2026-11-18T23:30:00Z", "2026-11-19T10:00:00Z"]);
    snapshots.iter_mut().for_each(|facts| facts.label = Some("x".to_owned()));
    assert_eq!(kept_times(&*policy, &snapshots, time("2026-11-20T00:00:00Z"), 10), ["2026-11-19"]);
}

#[test]
fn groups_are_source_host_label_and_tenant_unless_said_otherwise() {
    let mut snapshots: Vec<_> = (0..5).map(|n| facts(n, time("2026-11-20T00:00:00Z"))).collect();
    snapshots[1].source = "postgres".to_owned();
    snapshots[2].host = "other".to_owned();
    snapshots[3].label = Some("x".to_owned());
    snapshots[4].tenant = Some("x".to_owned());
    let kept = |text: &str| {
        let policy = parse(text).unwrap().build().unwrap();
        common::kept(&*policy, &snapshots, time("2026-11-20T00:00:00Z")).len()
    };
    assert_eq!(kept("keep_last = 1"), 5);
    assert_eq!(kept("keep_last = 1\ngroup_by = []"), 1);
    assert_eq!(kept("keep_last = 1\ngroup_by = ['host', 'label']"), 3);
}

//! Deployment B's policy over ten simulated years: what is kept at the end, how long each lived, and a picture of both.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use backup_core::retention::SnapshotFacts;
use backup_core::testing::retention::facts;
use backup_core::{SnapshotId, Timestamp};
use backup_retention::RetentionConfig;
use common::{kept, time};
use jiff::civil::{Date, Weekday};

/// As a configuration has it. The platform is backed up at three in the morning.
const PRODUCTION: &str = "grandfather_father_son = { daily = 7, weekly = 4, monthly = 12, yearly = 5 }";
const FIRST: &str = "2017-01-02T03:00:00Z";
const LAST: &str = "2026-12-31T03:00:00Z";
const DAY_SECONDS: i64 = 86_400;

/// How long a snapshot lives, by the days that it lived.
const LIVES: [(&str, &str, i64, i64); 4] = [
    ("seven days", "#c8d6e5", 0, 7),
    ("four weeks", "#54a0ff", 8, 28),
    ("twelve months", "#1e7d4f", 29, 366),
    ("five years", "#d35400", 367, 1827),
];

struct Life {
    day: Date,
    dropped: Option<i64>,
}

fn ten_years() -> (BTreeMap<SnapshotId, Life>, Vec<SnapshotFacts>, Timestamp) {
    let policy = toml::from_str::<RetentionConfig>(PRODUCTION).unwrap().build().unwrap();
    let mut lives: BTreeMap<SnapshotId, Life> = BTreeMap::new();
    let mut stored: Vec<SnapshotFacts> = Vec::new();
    let (mut now, last) = (time(FIRST), time(LAST));
    for number in 0.. {
        let new = facts(number, now);
        lives.insert(new.id, Life { day: day_of(now), dropped: None });
        stored.push(new);
        let kept = kept(&*policy, &stored, now);
        for gone in stored.iter().filter(|facts| !kept.contains(&facts.id)) {
            lives.get_mut(&gone.id).unwrap().dropped =
                Some((now.seconds() - gone.time.seconds()) / DAY_SECONDS);
        }
        stored.retain(|facts| kept.contains(&facts.id));
        if now >= last {
            break;
        }
        now = now.saturating_add_seconds(DAY_SECONDS);
    }
    (lives, stored, now)
}

fn day_of(time: Timestamp) -> Date {
    time.to_jiff().unwrap().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// By its definition how many days a snapshot of a day lives at least.
fn deserved(day: Date) -> i64 {
    if (day.month(), day.day()) == (1, 1) {
        5 * 365
    } else if day.day() == 1 {
        365
    } else if day.weekday() == Weekday::Sunday {
        28
    } else {
        7
    }
}

#[test]
fn each_snapshot_of_ten_years_lives_as_long_as_its_day_deserves() {
    let (lives, stored, now) = ten_years();
    assert_eq!(lives.len(), 3651);
    let mut of = [0; 4];
    for life in lives.values() {
        let Some(days) = life.dropped else { continue };
        let deserved = match life.day.to_string().as_str() {
            // The first ones stand in for a week, month and year that had begun before them.
            "2017-01-02" => 5 * 365 - 1,
            _ => deserved(life.day),
        };
        // Months are 28 to 31 days and years 365 or 366.
        let more = if deserved > 1000 { 2 } else { i64::from(deserved > 300) };
        assert!((deserved..=deserved + more).contains(&days), "{}: {days} days", life.day);
        of[LIVES.iter().position(|(.., from, to)| (*from..=*to).contains(&days)).unwrap()] += 1;
    }
    println!("{} snapshots, {} kept at {now}; of the others lived as those of", lives.len(), stored.len());
    for ((name, ..), count) in LIVES.iter().zip(of) {
        println!("  {name}: {count}");
        assert!(count > 0);
    }
    // Seven days, three more Sundays, eleven more firsts with New Year's among them, four more New Years.
    assert_eq!(stored.len(), 7 + 3 + 12 + 4);
}

#[test]
fn the_picture_in_the_docs_is_that_of_the_policy() {
    let (lives, stored, _) = ten_years();
    let picture = draw(&lives, &stored);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backup-core/docs/pictures/retention.svg");
    if std::env::var_os("BACKUP_WRITE_PICTURES").is_some() {
        std::fs::write(&path, &picture).unwrap();
    }
    let drawn = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        drawn == picture,
        "{} is of another policy; BACKUP_WRITE_PICTURES=1 draws it anew",
        path.display()
    );
}

const CELL: i64 = 9;
const LEFT: i64 = 40;
const TOP: i64 = 34;
const YEAR: i64 = 7 * CELL + 16;

/// Years below each other, each a calendar of its weeks: a day's colour says how long its snapshot lived or would live, a
/// ring that it is still there.
fn draw(lives: &BTreeMap<SnapshotId, Life>, stored: &[SnapshotFacts]) -> String {
    let mut paths: BTreeMap<&str, String> = BTreeMap::new();
    let mut rings = String::new();
    let mut years: Vec<i16> = lives.values().map(|life| life.day.year()).collect();
    years.sort_unstable();
    years.dedup();
    let place = |day: Date| {
        let row = i64::try_from(years.iter().position(|year| *year == day.year()).unwrap()).unwrap();
        let monday = i64::from(day.first_of_year().weekday().to_monday_zero_offset());
        let week = (i64::from(day.day_of_year()) - 1 + monday) / 7;
        let weekday = i64::from(day.weekday().to_monday_zero_offset());
        (LEFT + week * CELL, TOP + row * YEAR + weekday * CELL)
    };
    for (id, life) in lives {
        let (x, y) = place(life.day);
        // What is still there is shown as what its day deserves.
        let days = life.dropped.unwrap_or_else(|| deserved(life.day));
        let (_, colour, ..) = LIVES.iter().find(|(.., from, to)| (*from..=*to).contains(&days)).unwrap();
        write!(paths.entry(colour).or_default(), "M{x} {y}h8v8h-8z").unwrap();
        if stored.iter().any(|facts| facts.id == *id) {
            write!(rings, "M{x} {y}h8v8h-8z").unwrap();
        }
    }
    let (width, height) = (LEFT + 55 * CELL + 10, TOP + i64::try_from(years.len()).unwrap() * YEAR);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut x = LEFT;
    for (name, colour, ..) in LIVES {
        writeln!(svg, "<rect x=\"{x}\" y=\"10\" width=\"8\" height=\"8\" fill=\"{colour}\"/>").unwrap();
        writeln!(svg, "<text x=\"{}\" y=\"18\">{name}</text>", x + 12).unwrap();
        x += 100;
    }
    writeln!(svg, "<rect x=\"{x}\" y=\"10\" width=\"8\" height=\"8\" fill=\"none\" stroke=\"#000\"/>")
        .unwrap();
    writeln!(svg, "<text x=\"{}\" y=\"18\">there at the end</text>", x + 12).unwrap();
    for (year, row) in years.iter().zip(0..) {
        writeln!(svg, "<text x=\"6\" y=\"{}\">{year}</text>", TOP + row * YEAR + 4 * CELL).unwrap();
    }
    for (colour, path) in paths {
        writeln!(svg, "<path fill=\"{colour}\" d=\"{path}\"/>").unwrap();
    }
    writeln!(svg, "<path fill=\"none\" stroke=\"#000\" stroke-width=\"1.5\" d=\"{rings}\"/>\n</svg>")
        .unwrap();
    svg
}

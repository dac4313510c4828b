//! Arbitrary configurations and histories, the same for the same number.

use std::collections::BTreeSet;

use backup_core::retention::SnapshotFacts;
use backup_core::testing::retention::facts;
use backup_core::{RepositoryId, Timestamp};
use backup_retention::{Count, GfsConfig, GroupBy, OverrideConfig, RetentionConfig, WeekdayName};

use crate::clock::{DAY, HOUR, ZONES, Zone, instant};
use crate::rules::{Rule, Rules, Shot, Span, UNITS, Unit};

const WEEKDAYS: [WeekdayName; 7] = [
    WeekdayName::Monday,
    WeekdayName::Tuesday,
    WeekdayName::Wednesday,
    WeekdayName::Thursday,
    WeekdayName::Friday,
    WeekdayName::Saturday,
    WeekdayName::Sunday,
];

#[derive(Debug)]
pub struct Case {
    rules: Rules,
    by_host: bool,
    by_label: bool,
    /// Other rules for label 1.
    other: Option<Rules>,
    history: Vec<Shot>,
    now: i64,
}

impl Case {
    pub fn new(number: u64) -> Self {
        let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
        let rules = any_rules(&mut dice, None);
        let other = dice.one_in(4).then(|| any_rules(&mut dice, Some(rules.zone)));
        let (history, now) = any_history(&mut dice, rules.zone);
        Self { rules, by_host: dice.one_in(3), by_label: dice.one_in(3), other, history, now }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::new(self.now, 0)
    }

    pub fn facts(&self) -> Vec<SnapshotFacts> {
        let facts_of = |shot: &Shot| {
            let mut facts = facts(shot.number, Timestamp::new(shot.time, 0));
            facts.complete = shot.complete;
            facts.host = shot.host.to_string();
            facts.label = shot.label.map(|label| label.to_string());
            facts.origin = shot.origin.map(|origin| RepositoryId([origin; 16]));
            facts.quarantined = shot.quarantined;
            if shot.held {
                facts.tags.insert("hold".to_owned(), "yes".to_owned());
            }
            facts
        };
        self.history.iter().map(facts_of).collect()
    }

    pub fn config(&self) -> RetentionConfig {
        let mut config = config_of(&self.rules);
        config.group_by = Some(
            [(self.by_host, GroupBy::Host), (self.by_label, GroupBy::Label)]
                .into_iter()
                .filter_map(|(on, by)| on.then_some(by))
                .collect(),
        );
        let other = self.other.iter().map(|other| OverrideConfig {
            source: None,
            host: None,
            label: Some("1".to_owned()),
            tenant: None,
            policy: config_of(other),
        });
        config.overrides = other.collect();
        config
    }

    /// Of every snapshot of the history whether it must be kept.
    pub fn expected(&self) -> Vec<bool> {
        // One that is given twice counts once, by its newest time.
        let last = |shot: &Shot| {
            let same = self.history.iter().filter(|other| other.number == shot.number);
            same.max_by_key(|other| other.time).unwrap()
        };
        let group_of = |shot: &Shot| {
            let own = self.other.is_some() && shot.label == Some(1);
            (own, shot.origin, self.by_host.then_some(shot.host), self.by_label.then_some(shot.label))
        };
        let mut once: Vec<&Shot> = Vec::new();
        for shot in &self.history {
            if !once.iter().any(|other| other.number == shot.number) {
                once.push(last(shot));
            }
        }
        self.history
            .iter()
            .map(|shot| {
                let shot = last(shot);
                let is_among = |other: &&Shot| group_of(other) == group_of(shot) && !other.quarantined;
                let group: Vec<_> = once.iter().copied().filter(is_among).collect();
                let rules = self.other.as_ref().filter(|_| shot.label == Some(1)).unwrap_or(&self.rules);
                shot.quarantined || rules.keeps(&group, shot, self.now)
            })
            .collect()
    }

    /// What this is a case of.
    pub fn kinds(&self) -> BTreeSet<String> {
        let mut kinds: BTreeSet<_> = self.rules.rules.iter().map(|rule| kind_of(*rule)).collect();
        kinds.insert(format!("zone {}", self.rules.zone.name()));
        if self.other.is_some() {
            kinds.insert("an override".to_owned());
        }
        if self.by_host || self.by_label {
            kinds.insert("groups".to_owned());
        }
        if self.history.iter().any(|shot| shot.time > self.now) {
            kinds.insert("a snapshot of the future".to_owned());
        }
        if self.history.iter().any(|shot| shot.quarantined) {
            kinds.insert("a quarantined snapshot".to_owned());
        }
        if self.history.iter().any(|shot| shot.origin.is_some()) {
            kinds.insert("a copy".to_owned());
        }
        if self.history.iter().any(|shot| !shot.complete) {
            kinds.insert("a partial snapshot".to_owned());
        }
        kinds
    }
}

fn kind_of(rule: Rule) -> String {
    match rule {
        Rule::Last(_) => "last".to_owned(),
        Rule::Count(unit, _) => format!("so many of each {unit:?}"),
        Rule::All(_) => "one of each".to_owned(),
        Rule::Within(_) => "within a span".to_owned(),
        Rule::Each(unit, _) => format!("each {unit:?} within a span"),
        Rule::Fixed(unit, ..) => format!("the first of the {unit:?}"),
        Rule::Held => "tagged".to_owned(),
    }
}

fn any_rules(dice: &mut Dice, zone: Option<Zone>) -> Rules {
    let zone = zone.unwrap_or_else(|| dice.of(&ZONES));
    let weekday = dice.below(7);
    let mut rules = Vec::new();
    let mut taken = BTreeSet::new();
    for _ in 0..=dice.below(2) {
        let unit = dice.of(&UNITS);
        let rule = match dice.below(8) {
            0 => Rule::Last(dice.count()),
            1 | 2 => Rule::Count(unit, dice.count()),
            3 => Rule::All(unit),
            4 => Rule::Within(dice.span()),
            5 => Rule::Each(unit, dice.span()),
            6 => Rule::Fixed(if unit == Unit::Hour { Unit::Day } else { unit }, dice.count(), weekday),
            _ => Rule::Held,
        };
        // A configuration has one setting of each name; `all` is a count.
        let setting = match rule {
            Rule::All(unit) => kind_of(Rule::Count(unit, 0)),
            rule => kind_of(rule),
        };
        if taken.insert(setting) {
            rules.push(rule);
        }
    }
    Rules { zone, first: dice.below(7), rules, allow_empty: dice.one_in(3) }
}

fn config_of(rules: &Rules) -> RetentionConfig {
    let mut config = RetentionConfig {
        time_zone: Some(rules.zone.name().to_owned()),
        first_weekday: Some(weekday_of(rules.first)),
        allow_empty: rules.allow_empty,
        ..RetentionConfig::default()
    };
    let some = |count: usize| u32::try_from(count).unwrap();
    for rule in &rules.rules {
        match *rule {
            Rule::Last(count) => config.keep_last = Some(some(count)),
            Rule::Count(unit, count) => *count_of(&mut config, unit) = Some(Count::Some(some(count))),
            Rule::All(unit) => *count_of(&mut config, unit) = Some(Count::All),
            Rule::Within(span) => config.keep_within = Some(text_of(span).parse().unwrap()),
            Rule::Each(unit, span) => {
                let within = match unit {
                    Unit::Hour => &mut config.keep_within_hourly,
                    Unit::Day => &mut config.keep_within_daily,
                    Unit::Week => &mut config.keep_within_weekly,
                    Unit::Month => &mut config.keep_within_monthly,
                    Unit::Year => &mut config.keep_within_yearly,
                };
                *within = Some(text_of(span).parse().unwrap());
            }
            Rule::Fixed(unit, count, weekday) => {
                let gfs = config.grandfather_father_son.get_or_insert_with(GfsConfig::default);
                gfs.weekday = Some(weekday_of(weekday));
                match unit {
                    Unit::Week => gfs.weekly = some(count),
                    Unit::Month => gfs.monthly = some(count),
                    Unit::Year => gfs.yearly = some(count),
                    Unit::Hour | Unit::Day => gfs.daily = some(count),
                }
            }
            Rule::Held => config.keep_tags = vec!["hold".to_owned()],
        }
    }
    config
}

fn count_of(config: &mut RetentionConfig, unit: Unit) -> &mut Option<Count> {
    match unit {
        Unit::Hour => &mut config.keep_hourly,
        Unit::Day => &mut config.keep_daily,
        Unit::Week => &mut config.keep_weekly,
        Unit::Month => &mut config.keep_monthly,
        Unit::Year => &mut config.keep_yearly,
    }
}

fn text_of(Span(months, days, hours): Span) -> String {
    [(months / 12, "y"), (months % 12, "m"), (days, "d"), (hours, "h")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect()
}

fn weekday_of(number: i64) -> WeekdayName {
    WEEKDAYS[usize::try_from(number).unwrap()]
}

/// Snapshots around a change of the clock or around any moment, within hours or years, and when it is now.
fn any_history(dice: &mut Dice, zone: Zone) -> (Vec<Shot>, i64) {
    let (earliest, latest) = match zone {
        Zone::Apia => (instant(2010, 6, 1, 0, 0), instant(2012, 3, 30, 0, 0)),
        _ => (instant(2016, 1, 1, 0, 0), instant(2035, 1, 1, 0, 0)),
    };
    let changes = zone.changes();
    let centre = if changes.is_empty() || dice.one_in(2) {
        earliest + dice.below(latest - earliest)
    } else {
        dice.of(&changes)
    };
    let reach = dice.of(&[3 * HOUR, 2 * DAY, 12 * DAY, 100 * DAY, 1500 * DAY]);
    // Whole half hours meet each other, and the edges of days.
    let step = dice.of(&[1, 1800, DAY]);
    let moment = |dice: &mut Dice| {
        let distance = (dice.below(2 * reach + 1) - reach) / step * step;
        let rounded = if step == 1 { centre } else { centre.div_euclid(1800) * 1800 };
        (rounded + distance).clamp(earliest, latest)
    };
    let mut history: Vec<Shot> = Vec::new();
    for number in 0..dice.below(14) {
        let again = (!history.is_empty() && dice.one_in(20)).then(|| dice.of(&history));
        let time = moment(dice);
        history.push(match again {
            Some(shot) => Shot { time, ..shot },
            None => Shot {
                // Not in the order of time.
                number: number.unsigned_abs() * 7919 % 1009,
                time,
                complete: !dice.one_in(4),
                host: dice.of(&[0, 1]),
                label: dice.of(&[None, Some(1), Some(2)]),
                held: dice.one_in(6),
                origin: dice.one_in(5).then_some(1),
                quarantined: dice.one_in(12),
            },
        });
    }
    let now = if !history.is_empty() && dice.one_in(3) {
        dice.of(&history).time + dice.of(&[0, 0, -1])
    } else {
        moment(dice) + dice.of(&[0, reach, reach, reach])
    };
    (history, now.clamp(earliest, latest))
}

/// Steele, Lea and Flood's SplitMix64: enough for choosing cases.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: i64) -> i64 {
        i64::try_from(self.next() % end.unsigned_abs().max(1)).unwrap()
    }

    fn one_in(&mut self, count: i64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.next() % choices.len() as u64).unwrap()].clone()
    }

    fn count(&mut self) -> usize {
        1 + usize::try_from(self.below(4)).unwrap()
    }

    fn span(&mut self) -> Span {
        let number = 1 + self.below(8);
        match self.below(6) {
            0 => Span(0, 0, number * 5),
            1 => Span(0, number, 0),
            2 => Span(0, number * 11, 0),
            3 => Span(number, 0, 0),
            4 => Span(12, number, number),
            _ => Span(number, number * 3, number * 7),
        }
    }
}

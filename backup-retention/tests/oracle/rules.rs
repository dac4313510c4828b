//! What a configuration must keep, snapshot by snapshot, straight from the definitions: as slow as it is plain.

use crate::clock::{DAY, HOUR, Zone, civil, days_of, weekday};

#[derive(Debug, Clone)]
pub struct Shot {
    pub number: u64,
    pub time: i64,
    pub complete: bool,
    pub host: u8,
    pub label: Option<u8>,
    pub held: bool,
    /// The repository that it was copied from.
    pub origin: Option<u8>,
    pub quarantined: bool,
}

impl Shot {
    fn place(&self) -> (i64, u64) {
        (self.time, self.number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

pub const UNITS: [Unit; 5] = [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Year];

/// Months, days and hours.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub i64, pub i64, pub i64);

#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Last(usize),
    /// The newest of each of so many.
    Count(Unit, usize),
    All(Unit),
    Within(Span),
    /// The newest of each for so long.
    Each(Unit, Span),
    /// The first of each of so many, weeks beginning on the weekday.
    Fixed(Unit, usize, i64),
    Held,
}

#[derive(Debug, Clone)]
pub struct Rules {
    pub zone: Zone,
    /// With which weeks begin, 0 for Monday.
    pub first: i64,
    pub rules: Vec<Rule>,
    pub allow_empty: bool,
}

impl Rules {
    /// Whether this snapshot of a group must be kept.
    pub fn keeps(&self, group: &[&Shot], shot: &Shot, now: i64) -> bool {
        self.rules.iter().any(|rule| self.rule_keeps(*rule, group, shot, now))
            || (!self.allow_empty && is_the_one(group, shot, now))
    }

    fn rule_keeps(&self, rule: Rule, group: &[&Shot], shot: &Shot, now: i64) -> bool {
        match rule {
            Rule::Held => shot.held,
            Rule::Within(span) => shot.time >= self.before(now, span),
            _ if shot.time > now => true,
            _ => {
                let past: Vec<_> = group.iter().copied().filter(|other| other.time <= now).collect();
                let complete: Vec<_> = past.iter().copied().filter(|other| other.complete).collect();
                self.counts(rule, &past, shot, now)
                    || (shot.complete && self.counts(rule, &complete, shot, now))
            }
        }
    }

    fn counts(&self, rule: Rule, among: &[&Shot], shot: &Shot, now: i64) -> bool {
        let newer = |other: &&&Shot| other.place() > shot.place();
        match rule {
            Rule::Last(count) => among.iter().filter(newer).count() < count,
            Rule::Count(unit, count) => {
                self.newest_of_its(unit, among, shot) && self.later(unit, self.first, among, shot) < count
            }
            Rule::All(unit) => self.newest_of_its(unit, among, shot),
            Rule::Each(unit, span) => {
                self.newest_of_its(unit, among, shot) && shot.time >= self.before(now, span)
            }
            Rule::Fixed(unit, count, first) => {
                let day = |other: &Shot| self.zone.wall(other.time).div_euclid(DAY);
                let mine = self.period(unit, first, shot);
                among.iter().all(|other| {
                    self.period(unit, first, other) != mine
                        || day(other) > day(shot)
                        || (day(other) == day(shot) && other.place() <= shot.place())
                }) && self.later(unit, first, among, shot) < count
            }
            Rule::Within(_) | Rule::Held => unreachable!("nothing to count"),
        }
    }

    fn newest_of_its(&self, unit: Unit, among: &[&Shot], shot: &Shot) -> bool {
        let mine = self.period(unit, self.first, shot);
        among
            .iter()
            .all(|other| self.period(unit, self.first, other) != mine || other.place() <= shot.place())
    }

    /// How many later periods have a snapshot.
    fn later(&self, unit: Unit, first: i64, among: &[&Shot], shot: &Shot) -> usize {
        let mine = self.period(unit, first, shot);
        let mut later: Vec<_> = among
            .iter()
            .filter(|other| other.time > shot.time)
            .map(|other| self.period(unit, first, other))
            .filter(|period| *period != mine)
            .collect();
        later.sort_unstable();
        later.dedup();
        later.len()
    }

    /// A name of the period. An hour that comes twice is two; the other periods are one however often midnight comes.
    fn period(&self, unit: Unit, first: i64, shot: &Shot) -> (i64, i64) {
        let wall = self.zone.wall(shot.time);
        let days = wall.div_euclid(DAY);
        let (year, month, _) = civil(days);
        match unit {
            Unit::Hour => (wall.div_euclid(HOUR), self.zone.offset(shot.time)),
            Unit::Day => (days, 0),
            Unit::Week => (days - (weekday(days) - first).rem_euclid(7), 0),
            Unit::Month => (days_of(year, month, 1), 0),
            Unit::Year => (year, 0),
        }
    }

    fn before(&self, now: i64, Span(months, days, hours): Span) -> i64 {
        self.zone.before(now, months, days, hours)
    }
}

/// Whether a group would keep this one if no rule kept any: the newest complete one, the past before the future.
fn is_the_one(group: &[&Shot], shot: &Shot, now: i64) -> bool {
    let rank = |other: &Shot| (other.complete, other.time <= now, other.time, other.number);
    group.iter().all(|other| rank(other) <= rank(shot))
}

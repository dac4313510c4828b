//! Calendars and time zones by their published rules and integer arithmetic alone: nothing of what is tested is used.

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;

/// Zones of every awkward kind: none, Europe's and America's summer time, half an hour of it in the south, an offset of 45
/// minutes, and a day that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Utc,
    Zurich,
    NewYork,
    LordHowe,
    Kathmandu,
    Apia,
}

pub const ZONES: [Zone; 6] =
    [Zone::Utc, Zone::Zurich, Zone::NewYork, Zone::LordHowe, Zone::Kathmandu, Zone::Apia];

/// Samoa's changes up to the one before 2012-03-31, and the offset from each on.
const APIA: [(i64, i64); 4] = [
    (instant(2010, 9, 26, 11, 0), -10 * HOUR),
    (instant(2011, 4, 2, 14, 0), -11 * HOUR),
    (instant(2011, 9, 24, 14, 0), -10 * HOUR),
    // The 30th of December did not take place.
    (instant(2011, 12, 30, 10, 0), 14 * HOUR),
];

impl Zone {
    pub fn name(self) -> &'static str {
        match self {
            Self::Utc => "UTC",
            Self::Zurich => "Europe/Zurich",
            Self::NewYork => "America/New_York",
            Self::LordHowe => "Australia/Lord_Howe",
            Self::Kathmandu => "Asia/Kathmandu",
            Self::Apia => "Pacific/Apia",
        }
    }

    /// Seconds east of Greenwich at a moment: of 2008 to 2037, in Samoa until March 2012.
    pub fn offset(self, utc: i64) -> i64 {
        let (year, ..) = civil(utc.div_euclid(DAY));
        match self {
            Self::Utc => 0,
            Self::Kathmandu => 5 * HOUR + 45 * 60,
            Self::Zurich => {
                let from = sunday_on_or_before(year, 3, 31) * DAY + HOUR;
                let to = sunday_on_or_before(year, 10, 31) * DAY + HOUR;
                if (from..to).contains(&utc) { 2 * HOUR } else { HOUR }
            }
            Self::NewYork => {
                let from = sunday_on_or_before(year, 3, 14) * DAY + 7 * HOUR;
                let to = sunday_on_or_before(year, 11, 7) * DAY + 6 * HOUR;
                if (from..to).contains(&utc) { -4 * HOUR } else { -5 * HOUR }
            }
            Self::LordHowe => {
                // Both at two in the morning, which is the day before in Greenwich.
                let to = sunday_on_or_before(year, 4, 7) * DAY - 9 * HOUR;
                let from = sunday_on_or_before(year, 10, 7) * DAY - 8 * HOUR - 30 * 60;
                if (to..from).contains(&utc) { 10 * HOUR + 30 * 60 } else { 11 * HOUR }
            }
            Self::Apia => {
                let last = APIA.iter().rev().find(|(from, _)| *from <= utc);
                last.map_or(-11 * HOUR, |(_, offset)| *offset)
            }
        }
    }

    /// Moments at which the clocks of the zone were or will be changed.
    pub fn changes(self) -> Vec<i64> {
        let by_rule = |month_day: [(i64, i64, i64, i64); 2]| {
            (2020..2034)
                .flat_map(|year| {
                    month_day.map(|(month, day, hours, minutes)| {
                        sunday_on_or_before(year, month, day) * DAY + hours * HOUR + minutes * 60
                    })
                })
                .collect()
        };
        match self {
            Self::Utc | Self::Kathmandu => Vec::new(),
            Self::Zurich => by_rule([(3, 31, 1, 0), (10, 31, 1, 0)]),
            Self::NewYork => by_rule([(3, 14, 7, 0), (11, 7, 6, 0)]),
            Self::LordHowe => by_rule([(4, 7, -9, 0), (10, 7, -8, -30)]),
            Self::Apia => APIA.map(|(from, _)| from).to_vec(),
        }
    }

    /// The clock on the wall, as seconds since 1970 on that clock.
    pub fn wall(self, utc: i64) -> i64 {
        utc + self.offset(utc)
    }

    /// The moment at which the wall shows this; the first of two, and where it is left out, as far after the change.
    fn moment(self, wall: i64) -> i64 {
        let mut offsets: Vec<_> = (-2..=2).map(|days| self.offset(wall + days * DAY)).collect();
        offsets.sort_unstable();
        let shown = offsets.iter().rev().map(|offset| wall - offset).find(|utc| self.wall(*utc) == wall);
        shown.unwrap_or_else(|| wall - self.offset(wall - DAY))
    }

    /// A span of the calendar before a moment: months by the calendar, days by the wall, hours by the watch.
    pub fn before(self, utc: i64, months: i64, days: i64, hours: i64) -> i64 {
        let wall = self.wall(utc);
        let (year, month, day) = civil(wall.div_euclid(DAY));
        let count = year * 12 + month - 1 - months;
        let (year, month) = (count.div_euclid(12), count.rem_euclid(12) + 1);
        let date = days_of(year, month, day.min(length_of(year, month))) - days;
        self.moment(date * DAY + wall.rem_euclid(DAY)) - hours * HOUR
    }
}

/// Days since 1970 of a date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of days since 1970.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// 0 for Monday.
pub fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

pub const fn instant(year: i64, month: i64, day: i64, hour: i64, minute: i64) -> i64 {
    days_of(year, month, day) * DAY + hour * HOUR + minute * 60
}

fn length_of(year: i64, month: i64) -> i64 {
    days_of(year + month / 12, month % 12 + 1, 1) - days_of(year, month, 1)
}

fn sunday_on_or_before(year: i64, month: i64, day: i64) -> i64 {
    let days = days_of(year, month, day);
    days - (weekday(days) + 1) % 7
}

#[test]
fn the_oracles_calendar_is_right_where_the_answer_is_known() {
    assert_eq!(civil(days_of(2000, 2, 29)), (2000, 2, 29));
    assert_eq!(days_of(2026, 11, 21), 20_778);
    assert_eq!(weekday(days_of(2026, 11, 21)), 5);
    let march = instant(2026, 3, 29, 1, 0);
    assert_eq!((Zone::Zurich.offset(march - 1), Zone::Zurich.offset(march)), (HOUR, 2 * HOUR));
    let november = instant(2026, 11, 1, 6, 0);
    assert_eq!((Zone::NewYork.offset(november - 1), Zone::NewYork.offset(november)), (-4 * HOUR, -5 * HOUR));
    let april = instant(2026, 4, 4, 15, 0);
    assert_eq!((Zone::LordHowe.offset(april - 1), Zone::LordHowe.offset(april)), (11 * HOUR, 37_800));
    // Noon to noon over the change to summer time is 23 hours.
    assert_eq!(Zone::Zurich.before(instant(2026, 3, 29, 10, 0), 0, 1, 0), instant(2026, 3, 28, 11, 0));
    assert_eq!(Zone::Utc.before(instant(2026, 3, 31, 12, 0), 1, 0, 0), instant(2026, 2, 28, 12, 0));
}

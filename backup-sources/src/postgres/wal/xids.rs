//! Numbers of transactions.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Ranges that are written as text at most.
const RANGES_MAX: usize = 1000;

/// Numbers of transactions, in ranges: few, as they end nearly in the order in which they begin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct XidRanges(BTreeMap<u32, u32>);

impl XidRanges {
    /// Adds one.
    pub fn insert(&mut self, xid: u32) {
        if self.contains(xid) {
            return;
        }
        let mut range = (xid, xid);
        if let Some(next) = xid.checked_add(1)
            && let Some(last) = self.0.remove(&next)
        {
            range.1 = last;
        }
        let before = self.0.range_mut(..xid).next_back();
        match before.filter(|(_, last)| last.checked_add(1) == Some(xid)) {
            Some((_, last)) => *last = range.1,
            None => drop(self.0.insert(range.0, range.1)),
        }
    }

    /// Whether it was added.
    pub fn contains(&self, xid: u32) -> bool {
        self.0.range(..=xid).next_back().is_some_and(|(_, last)| *last >= xid)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `730-744,746`; nothing for more than a thousand ranges, which then are not known.
impl fmt::Display for XidRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > RANGES_MAX {
            return Ok(());
        }
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for XidRanges {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid_input("these are no numbers of transactions");
        let mut ranges = Self::default();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let first: u32 = first.parse().map_err(|_| wrong())?;
            let last: u32 = last.parse().map_err(|_| wrong())?;
            let follows = ranges.0.last_key_value().is_none_or(|(_, before)| *before < first);
            if first > last || !follows || ranges.0.len() >= RANGES_MAX {
                return Err(wrong());
            }
            ranges.0.insert(first, last);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_transactions_hold_what_was_added_and_nothing_else() {
        let mut ranges = XidRanges::default();
        assert!(ranges.is_empty());
        let added = [5, 3, 4, 9, 7, 8, 5, u32::MAX, u32::MAX - 1, 0];
        for (at, xid) in added.iter().enumerate() {
            ranges.insert(*xid);
            for other in (0..12).chain([u32::MAX - 2, u32::MAX - 1, u32::MAX]) {
                assert_eq!(ranges.contains(other), added[..=at].contains(&other), "{other} after {xid}");
            }
        }
        assert_eq!(ranges.0.len(), 4);
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let mut ranges = XidRanges::default();
        assert_eq!(ranges.to_string(), "");
        for xid in [730, 731, 732, 734, u32::MAX] {
            ranges.insert(xid);
        }
        assert_eq!(ranges.to_string(), format!("730-732,734,{}", u32::MAX));
        assert_eq!(ranges.to_string().parse::<XidRanges>().unwrap(), ranges);
        assert!("".parse::<XidRanges>().unwrap().is_empty());
        for wrong in ["x", "3-", "5-3", "3-5,4", "3,3", "-"] {
            assert!(wrong.parse::<XidRanges>().is_err(), "{wrong}");
        }
        let mut many = XidRanges::default();
        (0..=RANGES_MAX as u32).for_each(|xid| many.insert(xid * 2));
        assert_eq!(many.to_string(), "");
    }
}

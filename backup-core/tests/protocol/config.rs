//! Who takes part in a search, and how much may happen in it.

use super::mutants::Mutant;
use super::rules::{Prefix, View};
use super::store::{Ids, Store, bit};
use super::trace::Did;

/// Who takes part, and how much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    pub writers: u8,
    /// How often a writer begins anew when it was fenced, the first time included.
    pub attempts: u8,
    /// The first writer copies without a key: it puts the old pack under its old name.
    pub copier: bool,
    /// The first writer makes no snapshot: it stores the chunk once more, in a pack of its own.
    pub repacker: bool,
    pub collectors: u8,
    pub mergers: u8,
    pub forgetter: bool,
    pub undeleter: bool,
    pub holder: bool,
    pub archiver: bool,
    pub reader: bool,
    /// Whether there is an old snapshot, and whether its chunk stands in two packs.
    pub old: bool,
    pub twice: bool,
    /// Whether snapshots need the log segment.
    pub log: bool,
    /// How many digests fold outcomes, fates and decisions, whose files are then deleted.
    pub digests: u8,
    /// How often digests are merged into one: whoever does not list at once then reads what they say in a step of its own.
    pub merged_digests: u8,
    /// Whether collections go on until they retire.
    pub retiring: bool,
    /// Whether a collector reads what others sweep in a step of its own, after it has listed everything.
    pub parts: bool,
    /// How many puts may be sent that take effect later, or never.
    pub late: u8,
    /// Such a put of the old segment is under way from the beginning.
    pub late_old_segment: bool,
    /// Whose lists of one reading are one step.
    pub coarse: u8,
    /// Sessions whose segments and outcomes stand on the first page of a list of two; a list of one page if there are none.
    pub page: Ids,
    /// In every state: two quiet collections leave nothing behind.
    pub quiet: bool,
    pub mutant: Option<Mutant>,
}

/// A step of a reading.
pub struct Listed {
    pub did: Did,
    pub view: View,
    pub done: u8,
    pub finished: bool,
}

/// Roles, for [`Config::coarse`].
pub const WRITER: u8 = 1;
pub const COLLECTOR: u8 = 2;
pub const MERGER: u8 = 4;
pub const OTHER: u8 = 8;
pub const EVERYBODY: u8 = 15;

/// Nobody does anything.
pub const NOBODY: Config = Config {
    name: "",
    writers: 0,
    attempts: 1,
    copier: false,
    repacker: false,
    collectors: 0,
    mergers: 0,
    forgetter: false,
    undeleter: false,
    holder: false,
    archiver: false,
    reader: false,
    old: true,
    twice: false,
    log: false,
    digests: 0,
    merged_digests: 0,
    retiring: false,
    parts: false,
    late: 0,
    late_old_segment: false,
    coarse: 0,
    page: 0,
    quiet: false,
    mutant: None,
};

impl Config {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn session_of_writer(&self, writer: u8, attempt: u8) -> u8 {
        1 + writer * self.attempts + attempt
    }

    pub fn session_of_merger(&self, merger: u8) -> u8 {
        1 + self.writers * self.attempts + merger
    }

    /// The sessions that make snapshots.
    pub fn snapshots(&self) -> Ids {
        let without = if self.repacker {
            bit(self.session_of_writer(1, 0)) - bit(self.session_of_writer(0, 0))
        } else {
            0
        };
        (bit(self.session_of_merger(0)) - 1) & !without
    }

    /// The next steps of a reading whose lists are made in any order, or all that are left.
    pub fn list_in_any_order(
        &self,
        role: u8,
        prefixes: &'static [Prefix],
        done: u8,
        view: &View,
        store: &Store,
    ) -> Vec<Listed> {
        let pages: Vec<_> = self.steps_of(role, prefixes.iter().copied()).collect();
        let all = bit(pages.len() as u8) - 1;
        if self.coarse & role != 0 {
            let mut view = *view;
            pages.into_iter().for_each(|(prefix, page)| view.list_page(prefix, page, store));
            return vec![Listed { did: Did::ListsAll, view, done: all, finished: true }];
        }
        let mut steps = Vec::new();
        for (index, (prefix, page)) in pages.into_iter().enumerate() {
            // Of two pages the first comes first.
            let second =
                (index > 0 && page != Ids::MAX && page != self.page) || prefix == Prefix::DigestContents;
            if done & bit(index as u8) != 0 || (second && done & bit(index as u8 - 1) == 0) {
                continue;
            }
            let mut view = *view;
            let is_done = self.take(prefix, page, &mut view, store);
            let done = if is_done { done | bit(index as u8) } else { done };
            steps.push(Listed { did: Did::Lists(prefix), view, done, finished: done == all });
        }
        steps
    }

    /// The steps of lists in an order: some have two pages, and what digests say may be read after they were listed.
    fn steps_of(&self, role: u8, order: impl Iterator<Item = Prefix>) -> impl Iterator<Item = (Prefix, Ids)> {
        let (page, apart) = (self.page, self.merged_digests > 0 && self.coarse & role == 0);
        order.flat_map(move |prefix| {
            let steps = match prefix {
                Prefix::Segments | Prefix::Outcomes if page != 0 => {
                    [Some((prefix, page)), Some((prefix, !page))]
                }
                Prefix::Digests if apart => {
                    [Some((Prefix::DigestNames, Ids::MAX)), Some((Prefix::DigestContents, Ids::MAX))]
                }
                _ => [Some((prefix, Ids::MAX)), None],
            };
            steps.into_iter().flatten()
        })
    }

    /// Takes a step of a list; says whether it is done with it, and need not try again.
    fn take(&self, prefix: Prefix, page: Ids, view: &mut View, store: &Store) -> bool {
        view.list_page(prefix, page, store);
        if prefix != Prefix::DigestContents {
            return true;
        }
        if self.is(Mutant::MergedDigestsMissed) {
            view.named = None;
        }
        view.named.is_none()
    }

    /// In which order somebody lists, page by page; digests come last, but for a mutant.
    fn pages(&self, role: u8, prefixes: &'static [Prefix]) -> impl Iterator<Item = (Prefix, Ids)> {
        // What a mutant lists too early, and before what: before everything, if that is not said.
        let early = match self.mutant {
            Some(Mutant::DigestsListedFirst) => Some((Prefix::Digests, None)),
            Some(Mutant::OutcomesListedFirst) => Some((Prefix::Outcomes, None)),
            Some(Mutant::OutcomesBeforeSegments) => Some((Prefix::Outcomes, Some(Prefix::Segments))),
            Some(Mutant::FatesListedFirst) => Some((Prefix::Fates, None)),
            _ => None,
        };
        let mut order = prefixes.to_vec();
        if let Some((moved, before)) = early.filter(|(moved, _)| prefixes.contains(moved)) {
            order.retain(|prefix| *prefix != moved);
            let place =
                before.and_then(|before| order.iter().position(|prefix| *prefix == before)).unwrap_or(0);
            order.insert(place, moved);
        }
        self.steps_of(role, order.into_iter())
    }

    /// Takes the next step of a reading, or all that are left; says whether it is finished.
    pub fn list(
        &self,
        role: u8,
        prefixes: &'static [Prefix],
        done: &mut u8,
        view: &mut View,
        store: &Store,
    ) -> (Did, bool) {
        let mut left = self.pages(role, prefixes).skip(usize::from(*done)).peekable();
        if self.coarse & role != 0 {
            left.for_each(|(prefix, page)| view.list_page(prefix, page, store));
            return (Did::ListsAll, true);
        }
        let Some((prefix, page)) = left.next() else { return (Did::ListsAll, true) };
        let is_done = self.take(prefix, page, view, store);
        *done += u8::from(is_done);
        (Did::Lists(prefix), is_done && left.peek().is_none())
    }

    pub fn title(&self) -> String {
        self.mutant.map_or_else(|| self.name.to_owned(), |mutant| format!("{mutant:?}"))
    }

    /// The bound, in a few words.
    pub fn bound(&self) -> String {
        let mut words = Vec::new();
        let counts = [
            (self.writers, "writer"),
            (self.collectors, "collector"),
            (self.mergers, "merger"),
            (u8::from(self.forgetter), "forgetter"),
            (u8::from(self.undeleter), "undeleter"),
            (u8::from(self.holder), "holder"),
            (u8::from(self.archiver), "archiver"),
            (u8::from(self.reader), "reader"),
            (self.late + u8::from(self.late_old_segment), "late put"),
            (self.digests, "digest"),
            (self.merged_digests, "digest merge"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            words.push(format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
        }
        let flags = [
            (self.attempts > 1, "fenced writers begin anew once"),
            (self.copier, "the first writer copies"),
            (self.repacker, "the first writer repacks"),
            (self.twice, "the chunk stands in two packs"),
            (!self.old, "no old snapshot"),
            (self.retiring, "collections retire"),
            (self.parts, "what is swept is read apart"),
            (self.page != 0, "lists have pages"),
            (self.coarse & WRITER != 0, "writers list at once"),
            (self.coarse & COLLECTOR != 0, "collectors list at once"),
            (self.coarse & MERGER != 0 && self.mergers > 0, "mergers list at once"),
            (self.coarse & OTHER != 0 && (self.archiver || self.reader), "others list at once"),
            (self.quiet, "quiescence"),
        ];
        words.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, what)| what.to_owned()));
        words.join(", ")
    }
}

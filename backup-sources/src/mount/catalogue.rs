//! What stands above the snapshots: directories by time, identity, host, label and tag.

use std::collections::{BTreeMap, HashMap};

use backup_core::{SnapshotId, SnapshotInfo, Timestamp};

/// The directories above the snapshots, as of one listing.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// By their path from the root, which is empty for the root.
    directories: BTreeMap<String, Directory>,
    times: HashMap<SnapshotId, Timestamp>,
    /// When the last of the snapshots was taken.
    pub(super) latest: Timestamp,
}

/// What a directory holds, by name.
pub(super) type Directory = BTreeMap<String, Item>;

/// Something above the snapshots, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A directory, by its path.
    Directory(String),
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A link to this.
    Link(String),
}

/// Bytes of a name on Linux (`NAME_MAX`, limits.h).
pub(super) const NAME_BYTES_MAX: usize = 255;

const LATEST: &str = "latest";

impl Catalogue {
    /// The directories for these snapshots, the oldest first.
    pub(super) fn new<'a>(snapshots: impl IntoIterator<Item = &'a SnapshotInfo>) -> Self {
        let mut catalogue = Self::default();
        for top in ["snapshots", "ids", "hosts", "labels", "tags"] {
            catalogue.directory("", top);
        }
        for snapshot in snapshots {
            catalogue.add(snapshot);
        }
        catalogue
    }

    fn add(&mut self, snapshot: &SnapshotInfo) {
        let id = snapshot.id.to_string();
        // To the second; of several in one second, all but the first are told apart by the beginning of their identity.
        let mut name = Timestamp::new(snapshot.time.seconds(), 0).to_string();
        if self.get("snapshots", &name).is_some() {
            name = format!("{name}-{id:.8}");
        }
        if self.get("snapshots", &name).is_some() {
            name = format!("{name}-{id}");
        }
        self.put("snapshots", &name, Item::Snapshot(snapshot.id));
        self.put("snapshots", LATEST, Item::Link(name.clone()));
        self.put("", LATEST, Item::Link(format!("snapshots/{name}")));
        self.put("ids", &id, Item::Link(format!("../snapshots/{name}")));
        let tags = snapshot.tags.iter().map(|(key, value)| ("tags", format!("{key}={value}")));
        let label = snapshot.label.iter().map(|label| ("labels", label.clone()));
        for (top, group) in [("hosts", snapshot.host.clone())].into_iter().chain(label).chain(tags) {
            let Some(group) = file_name(&group) else { continue };
            let path = self.directory(top, &group);
            self.put(&path, &name, Item::Link(format!("../../snapshots/{name}")));
            self.put(&path, LATEST, Item::Link(name.clone()));
        }
        self.times.insert(snapshot.id, snapshot.time);
        self.latest = snapshot.time;
    }

    /// A directory's content.
    pub(super) fn list(&self, path: &str) -> Option<&Directory> {
        self.directories.get(path)
    }

    /// What stands under a name in a directory.
    pub(super) fn get(&self, path: &str, name: &str) -> Option<&Item> {
        self.directories.get(path)?.get(name)
    }

    /// When a snapshot was taken.
    pub(super) fn time(&self, id: SnapshotId) -> Option<Timestamp> {
        self.times.get(&id).copied()
    }

    fn put(&mut self, path: &str, name: &str, item: Item) {
        self.directories.entry(path.to_owned()).or_default().insert(name.to_owned(), item);
    }

    fn directory(&mut self, parent: &str, name: &str) -> String {
        let path = join(parent, name);
        self.put(parent, name, Item::Directory(path.clone()));
        self.directories.entry(path.clone()).or_default();
        path
    }
}

/// The path of a name in a directory.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// The directory that a path stands in, and its name there; none for the root.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').unwrap_or(("", path))) }
}

/// What a label, a host or a tag is called as a directory; none where nothing is left of it.
fn file_name(text: &str) -> Option<String> {
    let mut name = text.replace(['/', '\0'], "_");
    if matches!(name.as_str(), "." | ".." | LATEST) {
        name.push('_');
    }
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use backup_core::report::Outcome;

    use super::*;

    fn snapshot(first: u8, second: u8, time: i64, host: &str, label: Option<&str>) -> SnapshotInfo {
        let mut id = [0; 16];
        (id[0], id[15]) = (first, second);
        SnapshotInfo {
            id: SnapshotId::from_bytes(id),
            time: Timestamp::new(time, 500_000_000),
            stored: None,
            source: "files".into(),
            identity: Vec::new(),
            host: host.into(),
            label: label.map(str::to_owned),
            tenant: None,
            description: None,
            tags: BTreeMap::from([("a/b".into(), "..".into())]),
            position: BTreeMap::new(),
            parent: None,
            outcome: Outcome::Complete,
            entries: 0,
            bytes_logical: 0,
            bytes_added: 0,
            skipped: Vec::new(),
            skipped_count: 0,
            origin: None,
            change: None,
            anomaly: None,
            workload: None,
        }
    }

    #[test]
    fn snapshots_of_one_second_have_names_of_their_own_and_every_link_leads_to_one() {
        let long = "ä".repeat(200);
        let all = [
            snapshot(1, 1, 10, "web", Some("../..")),
            snapshot(2, 1, 20, ".", Some("")),
            snapshot(2, 2, 20, "", None),
            snapshot(2, 3, 20, "..", Some("latest")),
            snapshot(3, 1, 30, "web", Some(&long)),
        ];
        let catalogue = Catalogue::new(&all);
        let times = catalogue.list("snapshots").unwrap();
        let names: Vec<_> = times.keys().map(String::as_str).collect();
        let second = "1970-01-01T00:00:20Z";
        let tied = format!("{second}-02000000");
        let both = format!("{tied}-02000000000000000000000000000003");
        assert_eq!(names, ["1970-01-01T00:00:10Z", second, &tied, &both, "1970-01-01T00:00:30Z", "latest"]);
        assert_eq!(catalogue.get("snapshots", LATEST), Some(&Item::Link("1970-01-01T00:00:30Z".into())));
        assert_eq!(catalogue.list("hosts").unwrap().keys().collect::<Vec<_>>(), [".._", "._", "web"]);
        assert_eq!(catalogue.list("hosts/web").unwrap().len(), 3);
        assert_eq!(catalogue.list("tags").unwrap().keys().collect::<Vec<_>>(), ["a_b=.."]);
        for (path, directory) in &catalogue.directories {
            for (name, item) in directory {
                assert!(name.len() <= NAME_BYTES_MAX && !name.contains('/') && !name.is_empty(), "{name}");
                match item {
                    Item::Directory(below) => assert!(catalogue.list(below).is_some(), "{below}"),
                    Item::Snapshot(id) => assert!(catalogue.time(*id).is_some()),
                    Item::Link(target) => {
                        let up = target.matches("../").count();
                        let mut from = path.as_str();
                        (0..up).for_each(|_| from = split(from).unwrap().0);
                        let full = join(from, target.trim_start_matches("../"));
                        let (directory, name) = split(&full).unwrap();
                        let found = catalogue.get(directory, name);
                        assert!(matches!(found, Some(Item::Snapshot(_) | Item::Link(_))), "{full}");
                    }
                }
            }
        }
    }
}

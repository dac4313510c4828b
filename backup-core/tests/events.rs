//! What a backup tells while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::{Arc, Mutex};

use backup_core::repository::BackupOptions;
use backup_core::{Event, Observer, Progress};
use common::{Protect, SMALL, TestEntry, TestSource, in_memory, random};

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Event>>);

impl Observer for Heard {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[tokio::test]
async fn a_backup_tells_its_phases_each_object_and_in_the_end_all_it_did() {
    let (setup, _) = in_memory(Protect::Plain, SMALL).await;
    let entries = (0..50).map(|i| TestEntry::file(&format!("f{i:02}"), random(i, 20_000))).collect();
    let heard = Arc::new(Heard::default());
    let job = setup.job.clone().with_observer(heard.clone());
    let report =
        setup.repository.backup(&TestSource::new(entries), &BackupOptions::default(), &job).await.unwrap();

    let events = heard.0.lock().unwrap();
    let phases: Vec<_> = events
        .iter()
        .filter_map(|e| if let Event::Phase { name } = e { Some(*name) } else { None })
        .collect();
    assert_eq!(phases, ["open", "read", "commit"]);
    let stored: Vec<_> = events
        .iter()
        .filter_map(|e| if let Event::ObjectStored { bytes, .. } = e { Some(*bytes) } else { None })
        .collect();
    assert_eq!(
        (stored.len() as u64, stored.iter().sum::<u64>()),
        (report.objects_stored, report.bytes_stored)
    );
    let last =
        events.iter().rev().find_map(|e| if let Event::Progress(last) = e { Some(last) } else { None });
    let Progress { entries_done, bytes_done, bytes_stored, .. } = last.unwrap();
    assert_eq!((*entries_done, *bytes_done), (report.entries, report.bytes_logical));
    assert_eq!(*bytes_stored, report.bytes_stored, "told once everything is stored");
}

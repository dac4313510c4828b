//! Runnable examples of the backup engine as a library. Each is one file that can be read alone, and runs without
//! arguments:
//!
//! ```text
//! cargo run -p library-examples --example quickstart
//! ```
//!
//! | example | shows |
//! |---|---|
//! | `quickstart` | files into an encrypted local repository; list, restore, verify |
//! | `custom_source` | something of your own as a source, in 20 lines |
//! | `custom_sink` | a store of your own, in 20 lines, and the suite that checks it |
//! | `custom_transform` | a change of your own to what is stored, and how readers undo it |
//! | `custom_target` | a restore that writes no files |
//! | `custom_policy` | which snapshots to keep, by a rule of your own, and the plan to look at first |
//! | `progress` | a progress bar that observes a job |
//! | `embedded_service` | a service that starts, reports, cancels and drains backups on request |
//! | `shared_resources` | two jobs at once under one limit |
//! | `random_access` | a few bytes out of the middle of a stored file |
//! | `copy_snapshot` | a snapshot into another repository under other keys |
//!
//! The tests beside them run every example and look at what it did; `tests/misuse.rs` does what one should not do.

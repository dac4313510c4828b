//! See [`backup_fuzz::snapshot_tree`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::snapshot_tree(input));

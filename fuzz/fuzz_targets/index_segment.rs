//! See [`backup_fuzz::index_segment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::index_segment(input));

//! See [`backup_fuzz::log_segment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::log_segment(input));

//! See [`backup_fuzz::key_slot`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::key_slot(input));

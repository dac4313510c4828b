//! See [`backup_fuzz::directory`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::directory(input));

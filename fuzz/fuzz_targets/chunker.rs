//! See [`backup_fuzz::chunker`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::chunker(input));

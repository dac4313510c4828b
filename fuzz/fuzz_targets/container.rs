//! See [`backup_fuzz::container`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::container(input));

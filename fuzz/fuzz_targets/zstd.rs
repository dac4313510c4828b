//! See [`backup_fuzz::zstd`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::zstd(input));

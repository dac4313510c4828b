//! See [`backup_fuzz::documents`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::documents(input));

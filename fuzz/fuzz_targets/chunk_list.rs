//! See [`backup_fuzz::chunk_list`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::chunk_list(input));

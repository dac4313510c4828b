//! See [`backup_fuzz::entry_page`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| backup_fuzz::entry_page(input));

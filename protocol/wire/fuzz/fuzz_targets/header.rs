//! See [`tradewind_wire_fuzz::header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::header(data));

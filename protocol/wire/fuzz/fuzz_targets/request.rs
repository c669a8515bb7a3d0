//! See [`tradewind_wire_fuzz::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::request(data));

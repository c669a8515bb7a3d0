//! See [`tradewind_wire_fuzz::batches`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::batches(data));

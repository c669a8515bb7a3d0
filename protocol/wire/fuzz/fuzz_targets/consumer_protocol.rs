//! See [`tradewind_wire_fuzz::consumer_protocol`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::consumer_protocol(data));

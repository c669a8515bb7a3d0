//! See [`tradewind_wire_fuzz::mesh`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::mesh(data));

//! See [`tradewind_wire_fuzz::decompress`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tradewind_wire_fuzz::decompress(data));

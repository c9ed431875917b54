#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qpipe::fuzzing::run_record(bytes));

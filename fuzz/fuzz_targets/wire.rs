//! Bytes in both directions, torn anyhow: they are always understood alike, and nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| failfast::fuzz_wire(bytes));

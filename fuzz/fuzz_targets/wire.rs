//! Splits bytes in both directions at arbitrary places. The result must not depend on the places, and nothing may
//! panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| failfast::fuzz_wire(bytes));

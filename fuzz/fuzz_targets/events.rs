//! CloudEvents: what a client sends is a message or a problem, and what the node wraps comes out as it went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_bus::fuzzing;

fuzz_target!(|input: &[u8]| {
    for json in [false, true] {
        fuzzing::unwrap_event(input, json);
    }
    fuzzing::wrapped_events(input);
});

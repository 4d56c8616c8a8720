//! Frames, both ways: what the server writes has its boundaries where it says, and what a client sends is the same
//! whether the reader was kept or dropped between messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_bus::fuzzing;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    fuzzing::written_frames(rest, usize::from(*first));
    fuzzing::read_frames(rest, usize::from(*first) + 1);
});

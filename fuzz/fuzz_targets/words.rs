//! The small words: positions, durations, sizes, scopes, problems, close codes, requests. What is taken is written back as the
//! same, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_protocol::{
    After, CloseCode, EnqueueRequest, Job, Position, Problem, Scope, check_json, format_duration,
    parse_bytes, parse_duration,
};
use std::time::Duration;

fuzz_target!(|input: &str| {
    if let Ok(position) = input.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!(input.parse(), Ok(After::Position(position)));
    }
    _ = input.parse::<After>();
    if let Ok(duration) = parse_duration(input) {
        let again = parse_duration(&format_duration(duration)).expect("what is written can be read");
        // whole milliseconds are written, and seconds are read as a float, which near a century holds half a microsecond
        let most = Duration::from_millis(1) + Duration::from_micros(1);
        assert!(duration.abs_diff(again) < most, "{duration:?} {again:?}");
    }
    if let Ok(bytes) = parse_bytes(input) {
        assert_eq!(parse_bytes(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(scope) = input.parse::<Scope>() {
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
    if let Ok(problem) = serde_json::from_str::<Problem>(input) {
        let frame: serde_json::Value = serde_json::from_str(&problem.frame()).expect("a problem is JSON");
        assert_eq!(serde_json::from_value(frame["problem"].clone()).ok(), Some(problem));
    }
    if let Ok(code) = input.parse::<u16>() {
        _ = CloseCode::reconnect(code);
    }
    let readable = check_json(input).is_ok();
    // numbers beyond all floats are JSON to some and not to others; levels are what is counted
    assert!(!readable || serde_json::from_str::<serde_json::Value>(input).is_ok(), "readable, and not read");
    if let Ok(request) = serde_json::from_str::<EnqueueRequest>(input)
        && request.check().is_ok()
    {
        let written = serde_json::to_string(&request).expect("a request is JSON");
        let again: EnqueueRequest = serde_json::from_str(&written).expect("what is written can be read");
        assert!(again.check().is_ok(), "{written}");
    }
    if let Ok(job) = serde_json::from_str::<Job>(input) {
        let written = serde_json::to_string(&job).expect("a job is JSON");
        assert!(serde_json::from_str::<Job>(&written).is_ok(), "{written}");
    }
});

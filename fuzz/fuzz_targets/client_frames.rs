//! `minium.v1`: any text is a frame, a refusal that can be answered, or no frame at all; nothing in it is beyond bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_protocol::{
    Answer, CREDIT_MAX, ClientOp, FrameError, ID_BYTES_MAX, Problem, REF_BYTES_MAX, TASKS_MAX,
    read_client_frame,
};
use serde_json::Value;

fuzz_target!(|input: &str| match read_client_frame(input) {
    Ok(frame) => {
        let value: Value = serde_json::from_str(input).unwrap_or(Value::Null);
        answer_repeats(frame.reference.as_deref(), None);
        match frame.op {
            ClientOp::Pub { id: Some(id), .. } => assert!((1..=ID_BYTES_MAX).contains(&id.len())),
            ClientOp::Pull { credit, tasks, .. } => {
                assert!((1..=CREDIT_MAX).contains(&credit) && tasks.len() <= TASKS_MAX);
            }
            ClientOp::Ping => assert!(value.is_null() || value["op"] == "ping", "{value}"),
            _ => {}
        }
    }
    Err(FrameError::Refused { reference, problem }) => answer_repeats(reference.as_deref(), Some(&problem)),
    Err(FrameError::Bad(words)) => assert!(!words.is_empty()),
});

/// The answer is JSON and names the frame that it answers.
fn answer_repeats(reference: Option<&str>, problem: Option<&Problem>) {
    assert!(reference.is_none_or(|r| r.len() <= REF_BYTES_MAX));
    let answer = match problem {
        Some(problem) => Answer::Error { reference, problem },
        None => Answer::ok(reference),
    };
    let answer: Value = serde_json::from_str(&answer.text()).expect("an answer is JSON");
    assert_eq!(answer["ref"].as_str(), reference);
    assert_eq!(answer["op"], if problem.is_some() { "error" } else { "ok" });
}

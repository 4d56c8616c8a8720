//! Frames as clients send them, well and badly.

use super::*;
use proptest::prelude::*;

fn read(text: &str) -> ClientOp {
    read_client_frame(text).unwrap().op
}

fn refused(text: &str) -> String {
    match read_client_frame(text) {
        Err(FrameError::Refused { problem, .. }) => problem.detail.unwrap(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn each_op_is_read() {
    assert!(matches!(
        read(r#"{"op":"sub","topic":"a/+","after":"3:7"}"#),
        ClientOp::Sub { after: After::Position(Position { epoch: 3, offset: 7 }), .. }
    ));
    assert!(matches!(
        read(r#"{"op":"sub","after":7}"#),
        ClientOp::Sub { filter: None, after: After::Offset(7) }
    ));
    assert!(matches!(read(r#"{"op":"sub","last":2}"#), ClientOp::Sub { after: After::Last(2), .. }));
    let ClientOp::Pub { data, id, .. } = read(r#"{"op":"pub","topic":"a","data":{"x": 1},"id":"7"}"#) else {
        panic!()
    };
    assert_eq!((data.get(), id.as_deref()), (r#"{"x": 1}"#, Some("7")));
    let null = read(r#"{"op":"pub","topic":"a","data":null}"#);
    assert!(matches!(null, ClientOp::Pub { data, .. } if data.get() == "null"));
    assert!(matches!(read(r#"{"op":"pull","topic":"a"}"#), ClientOp::Pull { credit: 1, .. }));
    let ClientOp::Push { options: Some(options), .. } =
        read(r#"{"op":"push","topic":"a","data":[1],"options":{"priority":5,"delay":"90s"}}"#)
    else {
        panic!()
    };
    assert_eq!((options.priority, options.delay.as_secs()), (5, 90));
    let lease = LeaseToken::fresh();
    let ClientOp::Nack { retry, .. } =
        read(&format!(r#"{{"op":"nack","job":1,"lease":"{lease}","error":"no"}}"#))
    else {
        panic!()
    };
    assert!(retry, "unless it is said otherwise");
    assert!(matches!(read(r#"{"op":"ping"}"#), ClientOp::Ping));
}

#[test]
fn what_is_wrong_is_said_with_the_ref() {
    let error = read_client_frame(r#"{"op":"sub","topic":"a//b","ref":"r1"}"#).unwrap_err();
    let FrameError::Refused { reference, problem } = error else { panic!("{error:?}") };
    assert_eq!((reference.as_deref(), problem.code), (Some("r1"), ErrorCode::TopicInvalid));
    assert!(refused(r#"{"op":"pup"}"#).contains("sub, unsub, pub"));
    assert!(refused(r#"{"op":"pub","topic":"a"}"#).contains("data is missing"));
    assert!(refused(r#"{"op":"pub","data":1,"credit":1}"#).contains("credit means nothing with op pub"));
    assert!(refused(r#"{"op":"pub","data":1,"tpoic":"a"}"#).contains("tpoic"));
    assert!(refused(r#"{"op":"ack","job":1}"#).contains("lease is missing"));
    assert!(refused(r#"{"op":"push","data":1,"options":{"prio":1}}"#).contains("prio"));
    assert!(refused(r#"{"op":"push","data":1,"options":{"task":"y"}}"#).contains("task"));
    let after = refused(r#"{"op":"push","data":1,"options":{"after":[0]}}"#);
    assert!(after.contains("after names jobs of the same request"), "{after}");
    assert!(refused(r#"{"op":"pull","credit":0}"#).contains("1 to 10000"));
    for queue in ["", "a b", "a\\u0000b", &"x".repeat(129)] {
        assert!(
            refused(&format!(r#"{{"op":"pull","topic":"a","queue":"{queue}"}}"#)).contains("queue"),
            "{queue}"
        );
    }
    assert!(read_client_frame(r#"{"op":"pull","topic":"a","queue":"slow/lane"}"#).is_ok());
    assert!(refused("{}").contains("op"));
    let long = "x".repeat(ID_BYTES_MAX + 1);
    assert!(refused(&format!(r#"{{"op":"pub","data":1,"id":"{long}"}}"#)).contains("255 bytes"));
    assert!(read_client_frame(&format!(r#"{{"op":"pub","data":1,"id":"{}"}}"#, &long[1..])).is_ok());
    for bad in ["", "hello", "[1]", "7", "null", "\"sub\"", "{"] {
        assert!(matches!(read_client_frame(bad), Err(FrameError::Bad(_))), "{bad}");
    }
}

#[test]
fn a_progress_is_what_its_schema_says() {
    let note = |progress: &str| {
        let lease = "00000000-0000-0000-0000-000000000000";
        read_client_frame(&format!(r#"{{"op":"note","job":1,"lease":"{lease}","progress":{progress}}}"#))
    };
    for good in [r#"{"percent":0}"#, r#"{"percent":100,"text":"done"}"#, r#"{"percent":12.5}"#] {
        assert!(note(good).is_ok(), "{good}");
    }
    let long = format!(r#"{{"percent":1,"text":"{}"}}"#, "x".repeat(crate::PROGRESS_TEXT_BYTES_MAX + 1));
    for (bad, word) in [
        (r#"{"percent":-5}"#, "percent"),
        (r#"{"percent":100.5}"#, "percent"),
        (r#"{"percent":1e300}"#, "percent"),
        (&*long, "text"),
    ] {
        let Err(FrameError::Refused { problem, .. }) = note(bad) else { panic!("{bad}") };
        assert_eq!(problem.code, ErrorCode::InvalidRequest);
        assert!(problem.detail.unwrap().contains(word), "{bad}");
    }
}

#[test]
fn lines_for_a_log_come_with_a_note() {
    let note = |more: &str| {
        let lease = "00000000-0000-0000-0000-000000000000";
        read_client_frame(&format!(r#"{{"op":"note","job":1,"lease":"{lease}"{more}}}"#))
    };
    let Ok(ClientFrame { op: ClientOp::Note { log, notes, progress, .. }, .. }) =
        note(r#","log":[{"text":"x"},{"level":"step","text":"y","at":"2026-11-22T02:00:00Z"}]"#)
    else {
        panic!("it is a note")
    };
    assert!(notes.is_empty() && progress.is_none());
    assert_eq!((log.len(), log[0].at, log[1].level), (2, None, crate::LogLevel::Step));
    let many = format!(r#","log":[{{"text":"x"}}{}]"#, r#",{"text":"x"}"#.repeat(crate::LOG_LINES_MAX));
    for (bad, word) in [
        ("", "notes, progress or log"),
        (r#","log":{}"#, "sequence"),
        (r#","log":[{"text":"x","level":"loud"}]"#, "loud"),
        (r#","log":[{"level":"info"}]"#, "text"),
        (r#","log":[{"text":"x","n":1}]"#, "`n`"),
        (&*many, "1001 lines"),
    ] {
        let Err(FrameError::Refused { problem, .. }) = note(bad) else { panic!("{bad}") };
        let detail = problem.detail.unwrap();
        assert!(detail.contains(word), "{bad}: {detail}");
    }
}

#[test]
fn answers_have_only_what_they_say() {
    assert_eq!(Answer::ok(None).text(), r#"{"op":"ok"}"#);
    let position = Position { epoch: 3, offset: 7 };
    assert_eq!(Answer::at(Some("r"), position).text(), r#"{"op":"ok","ref":"r","epoch":3,"offset":7}"#);
    let up = Answer::CaughtUp { topic: "a", offset: 9 };
    assert_eq!(up.text(), r#"{"op":"caught_up","topic":"a","offset":9}"#);
    assert_eq!(Answer::Drain.text(), r#"{"op":"drain"}"#);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in ".{0,200}") {
        drop(read_client_frame(&text));
    }

    #[test]
    fn objects_of_known_members_are_answered(members in prop::collection::btree_map(
        prop::sample::select(vec!["op", "ref", "topic", "data", "after", "credit", "job", "lease", "error"]),
        prop_oneof![Just("1"), Just("\"sub\""), Just("\"a/b\""), Just("null"), Just("[]"), Just("{}")],
        0..6,
    )) {
        let body: Vec<String> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let text = format!("{{{}}}", body.join(","));
        prop_assert!(!matches!(read_client_frame(&text), Err(FrameError::Bad(_))), "{}", text);
    }
}

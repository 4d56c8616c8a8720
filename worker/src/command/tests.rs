//! Command lines and results; what needs a process stands in `tests/worker/commands.rs`.

use super::*;

#[test]
fn a_command_is_named_before_the_first_equals_sign() {
    let task = CommandTask::parse("livesys/burn-in=./burn-in.sh --hours=3 'a b'", false).unwrap();
    assert_eq!(task.name, "livesys/burn-in");
    assert_eq!(task.command, ["./burn-in.sh", "--hours=3", "a b"]);
    for bad in ["import", "import=", "import=  ", "import='x", "import=''"] {
        let error = CommandTask::parse(bad, false).unwrap_err();
        assert!(matches!(error, WorkerError::Command { .. }), "{bad}: {error}");
    }
}

#[test]
fn a_shell_gets_the_line_as_it_is() {
    let task = CommandTask::parse("x=echo $HOME | wc -c", true).unwrap();
    assert_eq!(task.words(), ["/bin/sh", "-c", "echo $HOME | wc -c"]);
    let task = CommandTask::parse("x=echo $HOME", false).unwrap();
    assert_eq!(task.words(), ["echo", "$HOME"]);
}

#[test]
fn stdout_is_json_if_it_can_be() {
    let text = |out: &[u8]| result(out).get().to_owned();
    assert_eq!(text(b" {\"a\": 1.50}\n"), "{\"a\": 1.50}");
    assert_eq!(text(b"12\n"), "12");
    assert_eq!(text(b"hello\nworld\n"), "\"hello\\nworld\"");
    assert_eq!(text(b"line\r\n"), "\"line\"");
    assert_eq!(text(b""), "null");
    assert_eq!(text(b" \n"), "null");
    assert_eq!(text(b"a\xffb"), "\"a\u{fffd}b\"");
    assert_eq!(text(b"{\"a\":1} {\"b\":2}"), "\"{\\\"a\\\":1} {\\\"b\\\":2}\"");
}

#[test]
fn json_that_others_cannot_read_stays_text() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert_eq!(result(deep.as_bytes()).get(), format!("\"{deep}\""));
    assert_eq!(result(br#""\ud800""#).get(), r#""\"\\ud800\"""#);
}

#[test]
fn how_it_ended_is_said_in_words() {
    assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exited with code 3");
    assert_eq!(describe(ExitStatus::from_raw(9)), "killed by signal 9 (SIGKILL)");
    assert_eq!(describe(ExitStatus::from_raw(40)), "killed by signal 40");
}

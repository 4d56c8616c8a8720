//! How one message looks: NDJSON for programs, a line for people.

use super::job_show::colour;
use super::output::{Colour, Output, Style, clean, one_line, shortened};
use minium_client::{Message, Payload};
use minium_protocol::{CloudEvent, Job, Position, State, Topic};
use serde::de::IgnoredAny;
use serde_json::json;

/// Writes one message.
pub(super) fn write(output: Output, message: &Message) -> anyhow::Result<()> {
    match output.style() {
        Style::Plain | Style::Json => output.line(&ndjson(message)),
        Style::People { .. } => output.line(&for_people(output, message)),
    }
}

/// What is shown beside the message itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// To people: its topic.
    pub(super) topic: bool,
    /// To programs: an object that has it.
    pub(super) wrapped: bool,
}

/// Writes one message of a subscription.
pub(super) fn write_from(
    output: Output,
    shown: Shown,
    topic: &Topic,
    position: Option<Position>,
    payload: Payload,
) -> anyhow::Result<()> {
    let message = payload.into_message(position.is_some());
    match output.style() {
        Style::Plain | Style::Json if shown.wrapped => output.line(&wrapped(topic, position, &message)),
        Style::People { .. } if shown.topic => {
            let line = for_people(output, &message);
            output.line(&format!("{}  {line}", output.paint(Colour::Grey, topic.as_str())))
        }
        Style::Plain | Style::Json | Style::People { .. } => write(output, &message),
    }
}

/// One line of JSON that says where the message comes from.
fn wrapped(topic: &Topic, position: Option<Position>, message: &Message) -> String {
    let position = position.map_or("null".into(), |p| format!("\"{p}\""));
    format!("{{\"topic\":{},\"position\":{position},\"data\":{}}}", json!(topic), ndjson(message))
}

/// One line of JSON, whatever it is: JSON as it came, other text as a string, binary as an object that says so.
fn ndjson(message: &Message) -> String {
    match message {
        Message::Text(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => one_line(text),
        Message::Text(text) => json!(text).to_string(),
        Message::Binary(bytes) => json!({ "data_base64": base64(bytes) }).to_string(),
    }
}

/// A task event in words, anything else as it is.
fn for_people(output: Output, message: &Message) -> String {
    let Some(text) = message.as_text() else { return output.paint(Colour::Grey, &message.to_string()) };
    let event = serde_json::from_str::<CloudEvent>(text).ok().filter(|e| e.kind.starts_with("task."));
    let job = event.as_ref().and_then(|e| serde_json::from_str::<Job>(e.data.as_ref()?.get()).ok());
    match (event, job) {
        (Some(event), Some(job)) => task_event(output, &event, &job),
        _ => clean(text),
    }
}

fn task_event(output: Output, event: &CloudEvent, job: &Job) -> String {
    const DETAIL_CHARACTERS_MAX: usize = 160;
    let time = event.time.map_or_else(String::new, |t| t.strftime("%H:%M:%S%.3f").to_string());
    let word = format!("{:<9}", event.kind.trim_start_matches("task."));
    let word = match colour(job.state) {
        Some(colour) => output.paint(colour, &clean(&word)),
        None => clean(&word),
    };
    let detail = match job.state {
        State::Finished => job.result.as_ref().map(|r| one_line(r.get())),
        State::Failed => job.error.clone(),
        State::Active => {
            job.progress.as_ref().map(|p| format!("{}% {}", p.percent, p.text.as_deref().unwrap_or("")))
        }
        State::Inactive | State::Cancelled => None,
    };
    let detail = shortened(clean(detail.unwrap_or_default().trim()).as_str(), DETAIL_CHARACTERS_MAX);
    let subject = format!("{} {}", job.id, clean(&job.task));
    let position = event.position().map_or_else(String::new, |p| p.to_string());
    let line = format!("{time}  {word} {subject}  {detail}");
    format!("{}  {}", line.trim_end(), output.paint(Colour::Grey, &position))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() { '=' } else { digit.into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_one_line_of_json() {
        let lines = [
            ("{\n \"a\": 1\n}", r#"{  "a": 1 }"#),
            ("42", "42"),
            ("hello", r#""hello""#),
            ("two\nlines", r#""two\nlines""#),
            ("", r#""""#),
        ];
        for (message, line) in lines {
            assert_eq!(ndjson(&message.into()), line);
        }
        let binary = Message::Binary(vec![0, 255, 16].into());
        assert_eq!(ndjson(&binary), r#"{"data_base64":"AP8Q"}"#);
    }

    #[test]
    fn a_wrapped_message_says_where_it_comes_from() {
        let topic: Topic = "a/b".parse().unwrap();
        let at = Some(Position { epoch: 1, offset: 2 });
        let line = wrapped(&topic, at, &"{\n\"a\":1}".into());
        assert_eq!(line, r#"{"topic":"a/b","position":"1:2","data":{ "a":1}}"#);
        assert_eq!(wrapped(&topic, None, &"x".into()), r#"{"topic":"a/b","position":null,"data":"x"}"#);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let told: Vec<_> =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|t| base64(t.as_bytes())).to_vec();
        assert_eq!(told, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}

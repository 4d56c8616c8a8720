//! Webhooks, signed as Standard Webhooks are: the event's very bytes, with an id that is the same in every attempt.

use super::outbound::{Answer, Road, Target};
use super::told::{Terms, Told};
use super::verdict::{Verdict, retry_after, shown, words};
use crate::webhook_signature::{ID, SIGNATURE, Secret, TIMESTAMP, sign};
use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use jiff::Timestamp;
use minium_notifier::{Rule, SinkEvent};
use minium_protocol::{EnqueueRequest, State};
use serde_json::json;
use std::time::Duration;

/// A receiver that is busy and does not say for how long.
const BUSY_PAUSE: Duration = Duration::from_secs(30);

/// Which events become deliveries.
pub(super) struct WebhookRule {
    pub(super) terms: Terms,
    /// Of task events only those in these states; empty means all.
    pub(super) states: Vec<State>,
}

impl Rule for WebhookRule {
    fn delivery(&self, event: &SinkEvent<'_>) -> Option<EnqueueRequest> {
        if !self.states.is_empty() {
            let state = Told::read(event.event)?.state();
            if state.is_some_and(|state| !self.states.contains(&state)) {
                return None;
            }
        }
        self.terms.request(event)
    }
}

/// Where they go.
pub(super) struct Webhook {
    pub(super) target: Target,
    pub(super) secrets: Vec<Secret>,
    pub(super) bearer: Option<HeaderValue>,
    pub(super) road: Road,
}

impl Webhook {
    /// One attempt.
    pub(super) async fn deliver(&self, told: &Told, event: Bytes, now: Timestamp) -> Verdict {
        let headers = match self.headers(&told.id, &event, now) {
            Ok(headers) => headers,
            Err(error) => return Verdict::Refused(format!("the event cannot be sent: {error}")),
        };
        match self.road.post(&self.target, headers, event).await {
            Ok(answer) => judge(&answer, now),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    fn headers(
        &self,
        id: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, http::header::InvalidHeaderValue> {
        let timestamp = now.as_second();
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json")),
            (HeaderName::from_static(ID), HeaderValue::from_str(id)?),
            (HeaderName::from_static(TIMESTAMP), HeaderValue::from(timestamp)),
            (
                HeaderName::from_static(SIGNATURE),
                HeaderValue::from_str(&sign(&self.secrets, id, timestamp, body))?,
            ),
        ];
        headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        Ok(headers)
    }
}

/// What a receiver's answer means.
fn judge(answer: &Answer, now: Timestamp) -> Verdict {
    let status = answer.status;
    let pause = retry_after(&answer.headers, now);
    match status {
        _ if status.is_success() => {
            Verdict::Delivered(json!({ "status": status.as_u16(), "body": shown(&answer.body) }))
        }
        _ if status.is_redirection() => {
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            Verdict::Failed(format!("{status} to {}: redirects are not followed", shown(to)))
        }
        StatusCode::GONE => Verdict::Refused(words(answer)),
        StatusCode::TOO_MANY_REQUESTS => Verdict::Later(pause.unwrap_or(BUSY_PAUSE), words(answer)),
        StatusCode::SERVICE_UNAVAILABLE => match pause {
            Some(pause) => Verdict::Later(pause, words(answer)),
            None => Verdict::Failed(words(answer)),
        },
        _ => Verdict::Failed(words(answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::RETRY_AFTER;
    use minium_protocol::Position;

    fn answer(status: u16, headers: &[(HeaderName, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: "so".into(),
        }
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let judged = |status, headers: &[_]| judge(&answer(status, headers), Timestamp::UNIX_EPOCH);
        assert!(matches!(judged(204, &[]), Verdict::Delivered(result) if result["status"] == 204));
        assert!(
            matches!(judged(410, &[]), Verdict::Refused(why) if why.contains("410") && why.contains("so"))
        );
        assert!(matches!(judged(500, &[]), Verdict::Failed(_)));
        assert!(matches!(judged(404, &[]), Verdict::Failed(_)), "it may be put up again");
        assert!(matches!(judged(503, &[]), Verdict::Failed(_)));
        let retry = [(RETRY_AFTER, "7")];
        assert!(matches!(judged(503, &retry), Verdict::Later(pause, _) if pause.as_secs() == 7));
        assert!(matches!(judged(429, &retry), Verdict::Later(pause, _) if pause.as_secs() == 7));
        assert!(matches!(judged(429, &[]), Verdict::Later(pause, _) if pause == BUSY_PAUSE));
        let moved = judged(302, &[(LOCATION, "http://169.254.169.254/")]);
        assert!(matches!(moved, Verdict::Failed(why) if why.contains("redirects are not followed")));
    }

    #[test]
    fn states_are_those_of_the_snapshot_and_messages_have_none() {
        let terms = Terms { sink: "s".into(), attempts: 1, backoff: None, timeout: BUSY_PAUSE };
        let rule = WebhookRule { terms, states: vec![State::Failed, State::Finished] };
        let topic = "task/import/7".parse().unwrap();
        let told = |kind: &str, data: &str| {
            let text = format!(
                r#"{{"id":"1","source":"/minium/default","type":"{kind}","time":"2026-01-01T00:00:00Z","data":{data}}}"#
            );
            let position = Position { epoch: 1, offset: 1 };
            rule.delivery(&SinkEvent { topic: &topic, position, event: text.as_bytes() }).is_some()
        };
        assert!(told("task.finished", r#"{"state":"finished"}"#));
        assert!(!told("task.enqueue", r#"{"state":"inactive"}"#));
        assert!(told("message", r#"{"state":"inactive"}"#));
    }
}

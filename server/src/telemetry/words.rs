//! Our spans in OpenTelemetry's words: what kind they are, how they are called, and what its conventions for messaging and HTTP
//! want to be said of them. It is done when a span has ended, so that nobody who works has to.

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

const SYSTEM: &str = "minium";

/// Says it in their words, beside ours.
pub(super) fn translate(span: &mut SpanData) {
    match &*span.name {
        "request" => request(span),
        "job" => run(span),
        "enqueue" => {
            // a text, since the layer has no unsigned numbers
            let count = text(span, "jobs").parse::<i64>().ok();
            send(span, "task");
            span.attributes.extend(count.map(|n| KeyValue::new("messaging.batch.message_count", n)));
        }
        "publish" => {
            let id = of(span, "message_id");
            send(span, "topic");
            span.attributes.extend(id.map(|id| KeyValue::new("messaging.message.id", id)));
        }
        _ => {}
    }
}

fn request(span: &mut SpanData) {
    span.span_kind = SpanKind::Server;
    let method = text(span, "http.request.method");
    span.name = match of(span, "http.route") {
        Some(route) => format!("{method} {}", route.as_str()).into(),
        None => method.into(),
    };
    if let Some(Value::I64(status)) = of(span, "http.response.status_code")
        && status >= 500
    {
        failed(span, status.to_string());
    }
}

/// One run of one job. The context that it was enqueued with is a link, and need not be told twice.
fn run(span: &mut SpanData) {
    span.span_kind = SpanKind::Consumer;
    span.attributes.retain(|attribute| attribute.key.as_str() != "traceparent");
    let (task, id) = (text(span, "task"), text(span, "job_id"));
    span.name = format!("run {task}").into();
    span.attributes.extend([
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.operation.name", "run"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", task),
        KeyValue::new("messaging.message.id", id),
    ]);
    match &*text(span, "state") {
        "finished" => {}
        // dropped before it was judged
        "" => failed(span, "abandoned".into()),
        state => failed(span, state.to_owned()),
    }
}

fn send(span: &mut SpanData, destination: &'static str) {
    span.span_kind = SpanKind::Producer;
    let (operation, destination) = (span.name.clone(), text(span, destination));
    span.name = format!("{operation} {destination}").into();
    span.attributes.extend([
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.destination.name", destination),
    ]);
}

/// Why stands in the job or the answer, and may hold what is nobody else's business: here is only that.
fn failed(span: &mut SpanData, kind: String) {
    span.status = Status::error("");
    span.attributes.push(KeyValue::new("error.type", kind));
}

fn of(span: &SpanData, key: &'static str) -> Option<Value> {
    let key = Key::from_static_str(key);
    span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.clone())
}

fn text(span: &SpanData, key: &'static str) -> String {
    of(span, key).map_or_else(String::new, |value| value.as_str().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanContext;
    use opentelemetry::{InstrumentationScope, SpanId};
    use std::time::UNIX_EPOCH;

    fn told(name: &'static str, attributes: Vec<KeyValue>) -> SpanData {
        let mut span = SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: UNIX_EPOCH,
            end_time: UNIX_EPOCH,
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        };
        translate(&mut span);
        span
    }

    fn job(state: Option<&'static str>) -> SpanData {
        let mut attributes = vec![
            KeyValue::new("job_id", 7_i64),
            KeyValue::new("task", "mail/invoice"),
            KeyValue::new("traceparent", "00-x"),
        ];
        attributes.extend(state.map(|state| KeyValue::new("state", state)));
        told("job", attributes)
    }

    #[test]
    fn a_run_is_a_consumer_that_says_which_job_it_ran_and_how_that_went() {
        let span = job(Some("finished"));
        assert_eq!(
            (span.span_kind.clone(), &*span.name, &span.status),
            (SpanKind::Consumer, "run mail/invoice", &Status::Unset)
        );
        assert_eq!(text(&span, "messaging.message.id"), "7");
        assert_eq!(text(&span, "messaging.destination.name"), "mail/invoice");
        assert_eq!((of(&span, "traceparent"), of(&span, "error.type")), (None, None));
        for (state, kind) in
            [(Some("failed"), "failed"), (Some("abandoned"), "abandoned"), (None, "abandoned")]
        {
            let span = job(state);
            assert_eq!((text(&span, "error.type").as_str(), &span.status), (kind, &Status::error("")));
        }
    }

    #[test]
    fn a_request_is_named_by_its_route_never_by_its_path() {
        let ask = |status: i64, route: Option<&'static str>| {
            let mut attributes = vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("url.path", "/push/a"),
                KeyValue::new("http.response.status_code", status),
            ];
            attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
            told("request", attributes)
        };
        let span = ask(200, Some("/push/{*topic}"));
        assert_eq!((span.span_kind.clone(), &*span.name), (SpanKind::Server, "POST /push/{*topic}"));
        // what the client did wrong is no failure of ours
        assert_eq!(ask(404, None).status, Status::Unset);
        let span = ask(503, None);
        assert_eq!((&*span.name, text(&span, "error.type").as_str()), ("POST", "503"));
    }

    #[test]
    fn what_goes_out_is_a_producer() {
        let span = told("publish", vec![KeyValue::new("topic", "a/b"), KeyValue::new("message_id", "x")]);
        assert_eq!((span.span_kind.clone(), &*span.name), (SpanKind::Producer, "publish a/b"));
        assert_eq!(text(&span, "messaging.message.id"), "x");
        let span = told("enqueue", vec![KeyValue::new("task", "t"), KeyValue::new("jobs", "3")]);
        assert_eq!(
            (&*span.name, of(&span, "messaging.batch.message_count")),
            ("enqueue t", Some(Value::I64(3)))
        );
        let span = told("relay", vec![]);
        assert_eq!((span.span_kind.clone(), &*span.name), (SpanKind::Internal, "relay"));
    }
}

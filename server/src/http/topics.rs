//! `/api/v1/topics`: what this node's sessions follow, and what was sent on it since the node started.

use super::problem::Refusal;
use super::query::{Pairs, limit, one, only, pairs};
use super::{App, json};
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_bus::{Pattern, TopicQuery, TopicView};
use minium_protocol::{ErrorCode, Topic};
use serde_json::{Value, json};
use std::sync::Arc;

/// Topics on a page, when nothing is said and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// GET `/api/v1/topics`: a page, by name.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let query = query(&pairs(&uri)?)?;
    let page = app.bus.topics(&query).await?;
    let next =
        page.topics.last().filter(|_| page.more).map(|last| format!("{}/{}", last.pattern, last.topic));
    let topics: Vec<Value> = page.topics.iter().map(shown).collect();
    let answer = json!({ "topics": topics, "next": next, "forgotten": page.forgotten });
    Ok(json(StatusCode::OK, answer.to_string()))
}

fn query(pairs: &Pairs) -> Result<TopicQuery, Refusal> {
    only(pairs, &["pattern", "prefix", "after", "limit"])?;
    Ok(TopicQuery {
        pattern: one(pairs, "pattern")?.map(pattern).transpose()?,
        prefix: one(pairs, "prefix")?.map(topic).transpose()?,
        after: one(pairs, "after")?.map(cursor).transpose()?,
        count_max: limit(pairs, PAGE, PAGE_MAX)? as usize,
    })
}

/// One of the three name spaces.
pub(super) fn pattern(word: &str) -> Result<Pattern, Refusal> {
    Pattern::named(word).ok_or_else(|| Refusal::invalid("pattern must be sub, push or bus"))
}

/// A topic that stands in a query or a body.
pub(super) fn topic(text: &str) -> Result<Topic, Refusal> {
    text.parse()
        .map_err(|e: minium_protocol::TopicError| Refusal::new(ErrorCode::TopicInvalid, e.to_string()))
}

/// Where a page ended.
fn cursor(text: &str) -> Result<(Topic, Pattern), Refusal> {
    let parts =
        text.split_once('/').and_then(|(word, name)| Some((name.parse().ok()?, Pattern::named(word)?)));
    parts.ok_or_else(|| Refusal::invalid("after is what the page before said as next"))
}

fn shown(view: &TopicView) -> Value {
    json!({
        "topic": view.topic.as_str(),
        "pattern": view.pattern.as_str(),
        "channel": view.channel.as_ref().map(Topic::as_str),
        "durable": view.durable,
        "schema": view.schema.as_deref(),
        "subscribers": view.subscribers,
        "pullers": view.pullers,
        "peers": view.peers,
        "messages": view.messages,
        "last": view.last,
        "rate": (f64::from(view.per_second) * 100.0).round() / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<TopicQuery, Refusal> {
        query(&pairs(&format!("/api/v1/topics{text}").parse().unwrap())?)
    }

    #[test]
    fn a_query_is_read_whole() {
        let all = asked("").unwrap();
        assert_eq!((all.pattern, all.prefix, all.after, all.count_max), (None, None, None, 100));
        let some = asked("?pattern=push&prefix=a/b&after=push/a/b/c&limit=5").unwrap();
        assert_eq!(some.pattern, Some(Pattern::Push));
        assert_eq!(some.prefix.unwrap().as_str(), "a/b");
        assert_eq!(some.after, Some(("a/b/c".parse().unwrap(), Pattern::Push)));
        for bad in ["?pattern=pub", "?prefix=a/+", "?prefix=", "?after=a", "?after=x/a", "?limit=0", "?q=1"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}

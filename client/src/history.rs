//! What is kept, by the page, over HTTP.

use crate::client::Client;
use crate::error::ClientError;
use crate::http::Request;
use crate::jobs::read;
use http::Method;
use minium_protocol::{After, Filter, Position};
use serde::Deserialize;
use serde_json::value::RawValue;

/// More than anything that stands before an event's data.
const BEGINNING_BYTES: usize = 64 << 10;
/// How a page begins.
const MESSAGES: &str = "{\"messages\":[";

/// A page of kept messages, in offset order.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Each the whole event, as it came.
    pub messages: Vec<Box<RawValue>>,
    /// The next page begins behind it.
    pub next: Option<Position>,
}

impl Client {
    /// A page of what is kept and matches.
    ///
    /// # Errors
    /// The server's problem, `offset_expired` and `epoch_changed` among them, or that it cannot be reached.
    pub async fn kept(
        &self,
        filter: &Filter,
        from: After,
        limit: Option<u32>,
    ) -> Result<HistoryPage, ClientError> {
        #[derive(Deserialize)]
        struct Wire {
            messages: Vec<Box<RawValue>>,
            next: Option<String>,
        }
        let path = format!("history/{filter}");
        let mut query = vec![place(from)];
        query.extend(limit.map(|limit| ("limit", limit.to_string())));
        let answer = self.request(Request { query, ..Request::new(Method::GET, &path) }).await?;
        let Wire { messages, next } = read(&path, &answer.body)?;
        Ok(HistoryPage { messages, next: next.and_then(|next| next.parse().ok()) })
    }

    /// How the first event begins that is kept and matches: of the whole event enough to see where it stands, however long
    /// it is. Nothing where there is none.
    ///
    /// # Errors
    /// As [`Client::kept`].
    pub async fn kept_beginning(&self, filter: &Filter, from: After) -> Result<Option<String>, ClientError> {
        let path = format!("history/{filter}");
        let query = vec![place(from), ("limit", "1".into())];
        let request = Request { query, ..Request::new(Method::GET, &path) };
        let body = self.beginning(request, BEGINNING_BYTES).await?;
        let text = String::from_utf8_lossy(&body);
        let event = text.strip_prefix(MESSAGES).ok_or_else(|| ClientError::Answer {
            what: format!("/{path}"),
            reason: "it is no page of messages".into(),
        })?;
        Ok(event.starts_with('{').then(|| event.to_owned()))
    }
}

fn place(from: After) -> (&'static str, String) {
    match from {
        After::Latest => ("last", "0".into()),
        After::Earliest => ("after", "earliest".into()),
        After::Offset(offset) => ("after", offset.to_string()),
        After::Position(position) => ("after", position.to_string()),
        After::Last(count) => ("last", count.to_string()),
    }
}

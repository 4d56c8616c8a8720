//! What becomes of a message between its sender and the logs: judged once, encoded once for each encoding in demand.
//!
//! A burst (what one read of a socket brought) is encoded together, so that it is one append to each log here and one
//! item in the inbox of each other shard, however many messages and subscribers there are.

use crate::channels::{NO_CHANNEL, label};
use crate::encode::{self, Encoding};
use crate::hub::{Hub, Targets};
use crate::inbox::Item;
use crate::message::Message;
use crate::opening::Mode;
use crate::pattern::Pattern;
use crate::schemas::Schema;
use bytes::Bytes;
use metrics::Counter;
use minium_protocol::{ErrorCode, Problem, Topic};
use serde_json::Value;
use std::sync::Arc;
use tokio::time::Instant;

/// Messages of one sender, ready for the logs of a shard.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) pattern: Pattern,
    pub(crate) topic: Topic,
    pub(crate) messages: u32,
    /// When they came.
    pub(crate) taken: Instant,
    frames: [Bytes; Encoding::ALL.len()],
}

impl Batch {
    pub(crate) fn frames(&self, encoding: Encoding) -> &[u8] {
        &self.frames[encoding as usize]
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

/// Messages being encoded; the buffers are used again for the next burst.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    messages: u32,
    targets: Targets,
    frames: [Vec<u8>; Encoding::ALL.len()],
}

/// A buffer that grew beyond this for one burst is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

impl Burst {
    /// Begins anew, for those who receive now.
    pub(crate) fn begin(&mut self, targets: Targets) {
        self.messages = 0;
        self.targets = targets;
        for frames in &mut self.frames {
            frames.clear();
            frames.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// Adds one message in every encoding that somebody receives.
    pub(crate) fn add(&mut self, source: &str, topic: &str, message: &Message) {
        self.messages += 1;
        for encoding in Encoding::ALL {
            if self.targets.wants(encoding) {
                encode::ephemeral(&mut self.frames[encoding as usize], encoding, source, topic, message);
            }
        }
    }

    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    pub(crate) fn targets(&self) -> Targets {
        self.targets
    }

    pub(crate) fn frames(&self, encoding: Encoding) -> &[u8] {
        &self.frames[encoding as usize]
    }

    /// A copy that may leave the thread.
    pub(crate) fn batch(&self, pattern: Pattern, topic: &Topic) -> Arc<Batch> {
        let frames = self.frames.each_ref().map(|f| Bytes::copy_from_slice(f));
        let (topic, taken) = (topic.clone(), Instant::now());
        Arc::new(Batch { pattern, topic, messages: self.messages, taken, frames })
    }
}

/// The shards in a bit set.
pub(crate) fn shards(bits: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |i| bits >> i & 1 == 1)
}

/// Says which messages of one sender may go out.
#[derive(Debug)]
pub(crate) struct Judge {
    pattern: Pattern,
    topic: Topic,
    mode: Mode,
    /// Only the journal fills this channel.
    reserved: bool,
    durable: bool,
    /// Which sets of schemas and channels the rest is from; nothing before the first look.
    generations: Option<(u64, u64)>,
    schema: Option<Arc<Schema>>,
    /// How metrics name its channel.
    channel: Arc<str>,
    published: Counter,
}

impl Judge {
    pub(crate) fn new(pattern: Pattern, topic: Topic, mode: Mode) -> Judge {
        Judge {
            pattern,
            topic,
            mode,
            reserved: false,
            durable: false,
            generations: None,
            schema: None,
            channel: NO_CHANNEL.into(),
            published: Counter::noop(),
        }
    }

    /// Takes note of new schemas and channels; to be called before each burst.
    pub(crate) fn refresh(&mut self, hub: &Hub) {
        let now = (hub.schemas.generation(), hub.channels.generation());
        if self.generations == Some(now) {
            return;
        }
        self.generations = Some(now);
        self.schema = hub.schemas.governing(self.pattern, self.topic.as_str());
        let channel = hub.channels.governing(self.pattern, &self.topic);
        self.channel = label(channel.as_deref());
        // nothing else of a channel concerns peers
        let rules = channel.filter(|_| self.pattern != Pattern::Bus);
        self.reserved = rules.as_ref().is_some_and(|c| c.reserved);
        self.durable = rules.is_some_and(|c| c.durable);
        self.published = crate::metrics::published(self.pattern.as_str(), self.channel.clone());
    }

    /// So many messages were taken.
    pub(crate) fn count(&self, messages: u64) {
        self.published.increment(messages);
    }

    /// A message does not go on.
    pub(crate) fn count_dropped(&self, reason: ErrorCode) {
        crate::metrics::dropped(self.channel.clone(), reason.as_str());
    }

    /// Do messages go to the journal, or to the queue?
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Is JSON all that it takes?
    pub(crate) fn wants_json(&self) -> bool {
        self.schema.is_some() || self.durable
    }

    /// The message to hand on, or what its sender is told.
    pub(crate) fn judge(&self, message: Message) -> Result<Message, Problem> {
        if self.reserved {
            let words = format!("what is kept under {} comes from the journal alone", self.topic);
            return Err(Problem::new(ErrorCode::Forbidden, words));
        }
        let message = match (self.mode, message) {
            (Mode::Plain | Mode::V1, message) => message,
            (Mode::CloudEvents, Message::Text(event)) => encode::unwrap(&event, self.wants_json())?,
            (Mode::CloudEvents, Message::Json(_) | Message::Binary(_)) => {
                return Err(Problem::new(ErrorCode::InvalidJson, "an event comes as JSON in a text frame"));
            }
        };
        let message = match &self.schema {
            Some(schema) => check(schema, &self.topic, message)?,
            None => message,
        };
        if !self.durable {
            return Ok(message);
        }
        // it is read again and again: by all who come later, too
        let fault = |e| Problem::new(ErrorCode::InvalidJson, format!("{} takes JSON: {e}", self.topic));
        message.into_json().map_err(fault)
    }
}

fn check(schema: &Schema, topic: &Topic, message: Message) -> Result<Message, Problem> {
    let (Message::Text(text) | Message::Json(text)) = message else {
        let words = format!("{topic} has a schema and takes JSON as text, not binary");
        return Err(Problem::new(ErrorCode::InvalidJson, words));
    };
    let value: Value = serde_json::from_slice(&text)
        .map_err(|e| Problem::new(ErrorCode::InvalidJson, format!("{topic} takes JSON: {e}")))?;
    schema.check(&value).map_err(|errors| {
        let words = format!("the message breaks the schema {} in {} places", schema.path(), errors.len());
        Problem { errors, ..Problem::new(ErrorCode::SchemaViolation, words) }
    })?;
    Ok(Message::Json(text))
}

/// One message that was judged and did not come over a WebSocket: to all who receive it now. Waits while a shard is
/// full.
pub(crate) async fn publish(hub: &Hub, pattern: Pattern, topic: &Topic, message: &Message) {
    hub.tallies.count_one(pattern, topic.as_str());
    let targets = hub.targets(pattern, topic);
    if targets.is_empty() {
        return;
    }
    let mut burst = Burst::default();
    burst.begin(targets);
    burst.add(&hub.options.source, topic.as_str(), message);
    let batch = burst.batch(pattern, topic);
    for shard in shards(targets.shards()) {
        hub.inboxes[shard].send(|| Item::Frames(batch.clone()), batch.bytes(), Some((pattern, topic))).await;
    }
}

/// Judges one message that did not come over a WebSocket. Also answers whether its channel is durable.
pub(crate) fn accept(
    hub: &Hub,
    pattern: Pattern,
    topic: &Topic,
    message: Message,
) -> Result<(Message, bool), Problem> {
    let (len, max) = (message.bytes().len(), hub.options.message_bytes_max);
    if len > max {
        let words = format!("the message has {len} bytes, at most {max} are allowed");
        return Err(Problem::new(ErrorCode::PayloadTooLarge, words));
    }
    if let Message::Text(text) = &message {
        std::str::from_utf8(text)
            .map_err(|e| Problem::new(ErrorCode::InvalidRequest, format!("the text is not UTF-8: {e}")))?;
    }
    let mut judge = Judge::new(pattern, topic.clone(), Mode::Plain);
    judge.refresh(hub);
    let message = judge.judge(message).inspect_err(|p| judge.count_dropped(p.code))?;
    judge.count(1);
    Ok((message, judge.is_durable()))
}

/// The bytes a batch counts for in an inbox.
pub(crate) fn batch_bytes(batch: &Batch) -> usize {
    batch.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follow::Follow;
    use crate::options::Options;
    use crate::schemas::{SchemaFile, Schemas};

    fn hub() -> Arc<Hub> {
        let schemas = Schemas::empty();
        let text = r#"{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}"#;
        let report = schemas.replace(vec![SchemaFile::new("sub/strict.json", text)]);
        assert!(report.is_clean(), "{report:?}");
        let outside = crate::outside::Outside::new(None, None, None, std::time::Duration::ZERO);
        Hub::new(Options::default(), Arc::new(schemas), Arc::default(), outside)
    }

    fn judge(pattern: Pattern, topic: &str, mode: Mode, message: Message) -> Result<Message, Problem> {
        let hub = hub();
        let mut judge = Judge::new(pattern, topic.parse().unwrap(), mode);
        judge.refresh(&hub);
        judge.judge(message)
    }

    fn code(pattern: Pattern, topic: &str, message: Message) -> Option<ErrorCode> {
        judge(pattern, topic, Mode::Plain, message).err().map(|p| p.code)
    }

    #[test]
    fn a_schema_governs_its_topic_and_what_lies_below_in_its_own_name_space() {
        assert_eq!(code(Pattern::Sub, "strict", r#"{"a":1}"#.into()), None);
        let problem = judge(Pattern::Sub, "strict/x", Mode::Plain, r#"{"a":"1"}"#.into()).unwrap_err();
        assert_eq!((problem.code, problem.errors.len()), (ErrorCode::SchemaViolation, 1));
        assert_eq!(problem.errors[0].pointer, "/a");
        assert_eq!(code(Pattern::Sub, "strict", "{".into()), Some(ErrorCode::InvalidJson));
        let binary = Message::Binary(Bytes::from_static(br#"{"a":1}"#));
        assert_eq!(code(Pattern::Sub, "strict", binary), Some(ErrorCode::InvalidJson));
        assert_eq!(code(Pattern::Bus, "strict", "{".into()), None);
        assert_eq!(code(Pattern::Sub, "strictly", "{".into()), None);
    }

    #[test]
    fn what_only_the_journal_fills_takes_nothing_from_clients() {
        assert_eq!(code(Pattern::Sub, "task/x/1", "{}".into()), Some(ErrorCode::Forbidden));
        assert_eq!(code(Pattern::Push, "task", "{}".into()), None);
        assert_eq!(code(Pattern::Bus, "task", "{}".into()), None);
        assert_eq!(code(Pattern::Sub, "tasks", "{}".into()), None);
    }

    #[test]
    fn the_data_of_an_event_is_the_message() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/c","type":"x","data":{"a":1}}"#;
        let message = judge(Pattern::Sub, "strict", Mode::CloudEvents, event.into()).unwrap();
        assert_eq!(message, Message::Json(Bytes::from_static(br#"{"a":1}"#)));
        let bad = |m: Message| judge(Pattern::Sub, "free", Mode::CloudEvents, m).unwrap_err().code;
        assert_eq!(bad("hello".into()), ErrorCode::InvalidJson);
        assert_eq!(bad(Message::Binary(event.into())), ErrorCode::InvalidJson);
    }

    #[test]
    fn new_schemas_count_from_the_next_burst_on() {
        let hub = hub();
        let mut judge = Judge::new(Pattern::Sub, "free".parse().unwrap(), Mode::Plain);
        judge.refresh(&hub);
        assert!(judge.judge("x".into()).is_ok());
        hub.schemas.replace(vec![SchemaFile::new("sub/free.json", "{\"type\":\"null\"}")]);
        judge.refresh(&hub);
        assert!(judge.judge("x".into()).is_err());
    }

    #[test]
    fn only_encodings_in_demand_are_made() {
        let hub = hub();
        let topic: Topic = "a".parse().unwrap();
        hub.set_interest(&Follow::new(Pattern::Sub, "a".parse().unwrap()), Encoding::Sse, 0, true);
        let mut burst = Burst::default();
        burst.begin(hub.targets(Pattern::Sub, &topic));
        burst.add("/s", "a", &"x".into());
        assert_eq!(burst.frames(Encoding::Plain), b"");
        assert_eq!(burst.frames(Encoding::Sse), b"data: x\n\n");
        burst.begin(Targets::default());
        assert_eq!((burst.messages(), burst.frames(Encoding::Sse)), (0, &b""[..]));
    }
}

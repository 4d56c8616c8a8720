//! Lists for operators: the sessions and the topics of this node, by the page.
//!
//! Shards share nothing, so each is asked by a message and answers about itself, on its own thread, from what it has at
//! hand: nothing is kept for lists on the way of a message but a count a burst. A shard that does not answer in time
//! makes the list unavailable, never a part of one.

use crate::bus::Bus;
use crate::hub::Hub;
use crate::inbox::{Item, Question};
use crate::pattern::Pattern;
use crate::seats::SessionView;
use crate::shard::Shard;
use jiff::Timestamp;
use minium_protocol::{CloseCode, ErrorCode, Problem, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Which sessions to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only numbers above this one.
    pub after: u64,
    /// At most so many.
    pub count_max: usize,
}

/// One page of sessions, those that were opened first first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<SessionView>,
    /// `after` of the next page, if there is one.
    pub next: Option<u64>,
}

/// Which topics to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicQuery {
    /// Only of this name space.
    pub pattern: Option<Pattern>,
    /// Only this topic and what lies below it.
    pub prefix: Option<Topic>,
    /// Only what stands behind it in the list.
    pub after: Option<(Topic, Pattern)>,
    /// At most so many.
    pub count_max: usize,
}

/// One page of topics, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPage {
    /// The topics.
    pub topics: Vec<TopicView>,
    /// Is there more behind the last one?
    pub more: bool,
    /// Topics whose counts were given up for others since the start.
    pub forgotten: u64,
}

/// A topic that somebody uses, or that something was sent on since the node started.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicView {
    /// Its name.
    pub topic: Topic,
    /// Its name space.
    pub pattern: Pattern,
    /// The prefix of the channel that governs it; nothing where the defaults hold.
    pub channel: Option<Topic>,
    /// Is it kept in the journal, or a task?
    pub durable: bool,
    /// The schema that governs it.
    pub schema: Option<Arc<str>>,
    /// Sessions that get what is sent on it live.
    pub subscribers: u64,
    /// Sessions that take work from it.
    pub pullers: u64,
    /// Sessions that are peers of it.
    pub peers: u64,
    /// Messages since the node started, or since it was forgotten; task events are counted by task.
    pub messages: u64,
    /// When the last one was sent, to a tenth of a second.
    pub last: Option<Timestamp>,
    /// Messages a second, of late.
    pub per_second: f32,
}

impl Bus {
    /// A page of the sessions of this node, without those that are being closed. It may be shorter than was asked for, and
    /// is the last one when there is no `next`.
    ///
    /// # Errors
    /// `unavailable` when a shard does not answer in time.
    pub async fn sessions(&self, query: SessionQuery) -> Result<SessionPage, Problem> {
        let SessionQuery { after, count_max } = query;
        let lists =
            ask_all(self.hub(), || move |shard: &Shard| shard.list_sessions(after, count_max)).await?;
        // behind the lowest of these some shard has sessions that are not among the answers
        let mut next = lists.iter().filter_map(|(_, until)| *until).min();
        let mut sessions: Vec<SessionView> = lists.into_iter().flat_map(|(views, _)| views).collect();
        sessions.retain(|session| next.is_none_or(|next| session.id <= next));
        sessions.sort_unstable_by_key(|session| session.id);
        if sessions.len() > count_max {
            sessions.truncate(count_max);
            next = sessions.last().map(|session| session.id);
        }
        Ok(SessionPage { sessions, next })
    }

    /// Closes one session; false when there is none with this number.
    ///
    /// # Errors
    /// `unavailable` when a shard does not answer in time.
    pub async fn close_session(&self, id: u64, code: CloseCode, reason: &str) -> Result<bool, Problem> {
        let ask = || {
            let reason = reason.to_owned();
            move |shard: &Shard| shard.close_session(id, code, &reason)
        };
        Ok(ask_all(self.hub(), ask).await?.into_iter().any(|closed| closed))
    }

    /// A page of the topics of this node.
    ///
    /// # Errors
    /// `unavailable` when a shard does not answer in time.
    pub async fn topics(&self, query: &TopicQuery) -> Result<TopicPage, Problem> {
        let hub = self.hub();
        let mut wanted = Wanted::new(query);
        hub.tallies.names(|pattern, topic| wanted.offer(pattern, topic));
        hub.topics(|pattern, topic| wanted.offer(pattern, topic));
        let pullers = pullers(hub, query).await?;
        pullers.keys().for_each(|topic| wanted.offer(Pattern::Push, topic));
        let (names, more) = wanted.into_page();
        let names = Arc::new(names);
        let receivers = ask_all(hub, || {
            let names = names.clone();
            move |shard: &Shard| names.iter().map(|(t, p)| shard.receivers(*p, t)).collect::<Vec<u64>>()
        });
        let receivers = receivers.await?;
        let view = |(i, (topic, pattern)): (usize, &(Topic, Pattern))| {
            let live = receivers.iter().filter_map(|shard| shard.get(i)).sum();
            let pullers = pullers.get(topic.as_str()).copied().unwrap_or_default();
            view(hub, topic, *pattern, live, pullers)
        };
        let topics = names.iter().enumerate().map(view).collect();
        Ok(TopicPage { topics, more, forgotten: hub.tallies.forgotten() })
    }
}

fn view(hub: &Hub, topic: &Topic, pattern: Pattern, live: u64, pullers: u64) -> TopicView {
    let channel = match pattern {
        Pattern::Sub | Pattern::Push => hub.channels.governing(pattern, topic),
        Pattern::Bus => None, // nothing of a channel concerns peers
    };
    let told = hub.tallies.told(pattern, topic.as_str());
    TopicView {
        pattern,
        durable: channel.as_ref().is_some_and(|channel| channel.durable),
        channel: channel.map(|channel| channel.prefix.clone()),
        schema: hub.schemas.governing(pattern, topic.as_str()).map(|schema| schema.path().into()),
        subscribers: if pattern == Pattern::Sub { live } else { 0 },
        pullers: if pattern == Pattern::Push { pullers } else { 0 },
        peers: if pattern == Pattern::Bus { live } else { 0 },
        messages: told.map_or(0, |told| told.messages),
        last: told.map(|told| told.last),
        per_second: told.map_or(0.0, |told| told.per_second),
        topic: topic.clone(),
    }
}

/// How many pull from each topic: all that may stand on the page.
async fn pullers(hub: &Hub, query: &TopicQuery) -> Result<BTreeMap<String, u64>, Problem> {
    let mut all = BTreeMap::new();
    if query.pattern.is_some_and(|pattern| pattern != Pattern::Push) {
        return Ok(all);
    }
    let query = Arc::new(TopicQuery { pattern: Some(Pattern::Push), ..query.clone() });
    let counts = ask_all(hub, || {
        let query = query.clone();
        move |shard: &Shard| shard.count_pullers(&query)
    });
    for (topic, count) in counts.await?.into_iter().flatten() {
        *all.entry(topic).or_default() += count;
    }
    Ok(all)
}

impl Shard {
    /// How many sessions here get what is sent on a topic, each of them once.
    fn receivers(&self, pattern: Pattern, topic: &Topic) -> u64 {
        if pattern == Pattern::Push {
            return 0;
        }
        let (stamp, mut count) = (self.next_stamp(), 0);
        self.shelf.borrow().matching(pattern, topic, |log| {
            if log.is_new(stamp) {
                count += log.subscribers.borrow().len() as u64;
            }
        });
        count
    }

    /// How many sessions here pull from each of the first topics that are asked for.
    fn count_pullers(&self, query: &TopicQuery) -> Vec<(String, u64)> {
        let mut counts = BTreeMap::new();
        let mut wanted = Wanted::new(query);
        for (id, session) in self.pullers.borrow().iter() {
            session.pulled(*id, |topic| {
                wanted.offer(Pattern::Push, topic);
                if wanted.has(Pattern::Push, topic) {
                    *counts.entry(topic.to_owned()).or_default() += 1;
                }
            });
        }
        // some were among the first only until others came
        counts.into_iter().filter(|(topic, _)| wanted.has(Pattern::Push, topic)).collect()
    }
}

/// The first names behind a cursor that a query asks for, out of any number in any order.
struct Wanted<'a> {
    query: &'a TopicQuery,
    names: BTreeSet<(String, Pattern)>,
}

impl<'a> Wanted<'a> {
    fn new(query: &'a TopicQuery) -> Wanted<'a> {
        Wanted { query, names: BTreeSet::new() }
    }

    fn is_asked(&self, pattern: Pattern, topic: &str) -> bool {
        let TopicQuery { pattern: only, prefix, after, .. } = self.query;
        let below = |prefix: &Topic| {
            let rest = topic.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        only.is_none_or(|only| only == pattern)
            && prefix.as_ref().is_none_or(below)
            && after.as_ref().is_none_or(|(t, p)| (topic, pattern) > (t.as_str(), *p))
    }

    /// One more is kept than a page has, to know whether there is one.
    fn offer(&mut self, pattern: Pattern, topic: &str) {
        let full = self.names.len() > self.query.count_max;
        let beyond = |(t, p): &(String, Pattern)| (topic, pattern) > (t.as_str(), *p);
        if !self.is_asked(pattern, topic) || full && self.names.last().is_some_and(beyond) {
            return;
        }
        self.names.insert((topic.to_owned(), pattern));
        if self.names.len() > self.query.count_max + 1 {
            self.names.pop_last();
        }
    }

    fn has(&self, pattern: Pattern, topic: &str) -> bool {
        self.names.contains(&(topic.to_owned(), pattern))
    }

    /// The page, and whether there is more.
    fn into_page(self) -> (Vec<(Topic, Pattern)>, bool) {
        let (max, more) = (self.query.count_max, self.names.len() > self.query.count_max);
        let names = self.names.into_iter().take(max);
        // whatever is followed or sent to is a topic
        (names.filter_map(|(topic, pattern)| Some((topic.parse().ok()?, pattern))).collect(), more)
    }
}

/// Asks every shard, and waits for all of them, but not for ever. So many questions are open at one time, that those of a
/// shard that does not answer are bounded, too: a question keeps its room until its shard has heard it.
async fn ask_all<T, Q>(hub: &Hub, question: impl Fn() -> Q) -> Result<Vec<T>, Problem>
where
    T: Send + 'static,
    Q: FnOnce(&Shard) -> T + Send + 'static,
{
    let unavailable = |words: &str| Problem::new(ErrorCode::Unavailable, words);
    let Ok(room) = hub.asking.clone().try_acquire_owned() else {
        return Err(unavailable("too much is asked at once"));
    };
    let room = Arc::new(room);
    let mut answers = Vec::with_capacity(hub.inboxes.len());
    for inbox in &hub.inboxes {
        let (tell, told) = oneshot::channel();
        let (ask, room) = (question(), room.clone());
        let question: Question = Box::new(move |shard| {
            let _room = room;
            // whoever asked may have gone by now
            drop(tell.send(ask(shard)));
        });
        inbox.put(Item::Ask(question)).map_err(|_| unavailable("the node goes down"))?;
        answers.push(told);
    }
    let answers = futures::future::try_join_all(answers);
    match tokio::time::timeout(hub.options.lists_patience, answers).await {
        Ok(answers) => answers.map_err(|_| unavailable("a part of the node ended before it answered")),
        Err(_) => Err(unavailable("a part of the node is too busy to answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inbox;
    use crate::options::Options;
    use proptest::prelude::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_shard_that_does_not_answer_makes_a_list_unavailable() {
        // nobody takes anything out of these inboxes
        let hub = Hub::alone(Options { lists_patience: Duration::from_millis(20), ..Options::default() });
        let asked = ask_all(&hub, || |shard: &Shard| shard.list_sessions(0, 1)).await;
        assert_eq!(asked.unwrap_err().code, ErrorCode::Unavailable);
        let open = hub.options.lists_max - hub.asking.available_permits();
        assert_eq!(open, 1, "it is still to be heard");
        hub.inboxes.iter().for_each(Inbox::close);
        assert_eq!(hub.asking.available_permits(), hub.options.lists_max);
        let asked = ask_all(&hub, || |shard: &Shard| shard.id).await;
        assert_eq!(asked.unwrap_err().code, ErrorCode::Unavailable);
    }

    fn query(pattern: Option<Pattern>, prefix: Option<&str>, count_max: usize) -> TopicQuery {
        TopicQuery { pattern, prefix: prefix.map(|p| p.parse().unwrap()), after: None, count_max }
    }

    #[test]
    fn a_prefix_is_of_whole_segments() {
        let query = query(None, Some("a"), 10);
        let mut wanted = Wanted::new(&query);
        for topic in ["a", "ab", "a/b", "b/a"] {
            wanted.offer(Pattern::Sub, topic);
        }
        let (page, more) = wanted.into_page();
        assert_eq!(page.iter().map(|(t, _)| t.as_str()).collect::<Vec<_>>(), ["a", "a/b"]);
        assert!(!more);
    }

    proptest! {
        /// Page by page comes everything once, in order, whatever the order in which it is found.
        #[test]
        fn pages_have_everything_once(
            names in prop::collection::vec(("[ab](/[ab]){0,2}", 0usize..3), 0..40),
            count_max in 1usize..6,
        ) {
            let names: Vec<(String, Pattern)> = names.into_iter().map(|(t, p)| (t, Pattern::ALL[p])).collect();
            let all: BTreeSet<_> = names.iter().cloned().collect();
            let mut seen = Vec::new();
            let mut query = query(None, None, count_max);
            loop {
                let mut wanted = Wanted::new(&query);
                names.iter().for_each(|(topic, pattern)| wanted.offer(*pattern, topic));
                let (page, more) = wanted.into_page();
                seen.extend(page.iter().map(|(t, p)| (t.to_string(), *p)));
                if !more {
                    break;
                }
                prop_assert_eq!(page.len(), count_max);
                query.after = page.last().cloned();
            }
            prop_assert_eq!(seen, all.into_iter().collect::<Vec<_>>());
        }
    }
}

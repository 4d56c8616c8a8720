//! Topics and filters: path-like addresses, and who hears what is said to them.
//!
//! A `Topic` is where a message is sent; a `Filter` is what a subscriber asks for. A filter without `+` hears its
//! own topic and everything below it, by whole segments; `+` stands for exactly one segment. Both are checked once,
//! when they come in, and are cheap to clone afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SEGMENTS_MAX: usize = 16;
const SEGMENT_BYTES_MAX: usize = 128;
const TOPIC_BYTES_MAX: usize = 255;

/// A checked topic: 1 to 16 segments, each `[A-Za-z0-9_.~:@-]{1,128}`, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A checked subscription: a topic in which whole segments may be `+`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    text: Arc<str>,
    wild: bool,
}

/// Which rule a topic or filter broke. The words are part of the answer `topic_invalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Nothing was named.
    #[error("a topic needs at least one segment")]
    Empty,
    /// Two slashes in a row, or one at an end.
    #[error("segment {0} is empty; a topic neither begins nor ends with a slash, nor has two in a row")]
    EmptySegment(usize),
    /// More than 255 bytes.
    #[error("the topic has {0} bytes, at most {TOPIC_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// More than 16 segments.
    #[error("the topic has more than {SEGMENTS_MAX} segments")]
    TooDeep,
    /// More than 128 bytes in one segment.
    #[error("segment {0} has more than {SEGMENT_BYTES_MAX} bytes")]
    SegmentTooLong(usize),
    /// A character that is not allowed.
    #[error("segment {0} has the character {1:?}; only A-Z a-z 0-9 _ . ~ : @ - may be in it")]
    BadCharacter(usize, char),
    /// `.` or `..`.
    #[error("segment {0} is a dot segment")]
    DotSegment(usize),
    /// `+` where something is sent.
    #[error("+ stands for a segment in subscriptions only")]
    Wildcard,
    /// `%2F` in a path.
    #[error("an encoded slash is not allowed")]
    EncodedSlash,
    /// Not UTF-8 after decoding, or a broken escape.
    #[error("the path is not valid percent-encoded UTF-8")]
    BadEncoding,
}

fn check(text: &str, wildcards: bool) -> Result<bool, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong(text.len()));
    }
    let mut wild = false;
    for (i, segment) in text.split('/').enumerate() {
        let place = i + 1;
        if place > SEGMENTS_MAX {
            return Err(TopicError::TooDeep);
        }
        match segment {
            "" => return Err(TopicError::EmptySegment(place)),
            "+" if wildcards => wild = true,
            "+" => return Err(TopicError::Wildcard),
            "." | ".." => return Err(TopicError::DotSegment(place)),
            s if s.len() > SEGMENT_BYTES_MAX => return Err(TopicError::SegmentTooLong(place)),
            s => {
                if let Some(bad) = s.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.~:@-".contains(*c)) {
                    return Err(TopicError::BadCharacter(place, bad));
                }
            }
        }
    }
    Ok(wild)
}

/// Decodes a path as it stands in a URL. An encoded slash is refused: it would hide a level.
fn decode(path: &str) -> Result<String, TopicError> {
    let bytes = path.as_bytes();
    for (i, b) in bytes.iter().enumerate() {
        if *b == b'%' {
            match bytes.get(i + 1..i + 3) {
                Some(hex) if hex.eq_ignore_ascii_case(b"2f") => return Err(TopicError::EncodedSlash),
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => {}
                _ => return Err(TopicError::BadEncoding),
            }
        }
    }
    let text = percent_encoding::percent_decode(bytes).decode_utf8();
    text.map(|t| t.into_owned()).map_err(|_| TopicError::BadEncoding)
}

impl Topic {
    /// From the rest of a URL path, still percent-encoded.
    pub fn from_path(path: &str) -> Result<Topic, TopicError> {
        decode(path)?.parse()
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic's text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// `a/b/c`, `a/b`, `a`: the topic itself, then its parents, nearest first.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        levels(&self.0)
    }

    /// The topic of one job's events: `task/<task>/<id>`. What is wrong with the task is told by the task's own segments.
    pub fn of_job(task: &str, id: i64) -> Result<Topic, TopicError> {
        check(task, false)?;
        format!("task/{task}/{id}").parse()
    }
}

/// As [`Topic::levels`], for text that is known to be a topic, or a task.
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(topic), |t| t.rfind('/').map(|i| &t[..i]))
}

impl Filter {
    /// From the rest of a URL path, still percent-encoded.
    pub fn from_path(path: &str) -> Result<Filter, TopicError> {
        decode(path)?.parse()
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Has it a `+`?
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// Does a message on `topic` reach who subscribed this filter?
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_str(topic.as_str())
    }

    /// As [`Filter::matches`], for text that is known to be a topic.
    pub fn matches_str(&self, topic: &str) -> bool {
        if !self.wild {
            let rest = topic.strip_prefix(&*self.text);
            return rest.is_some_and(|r| r.is_empty() || r.starts_with('/'));
        }
        let mut have = topic.split('/');
        self.text.split('/').all(|want| have.next().is_some_and(|got| want == "+" || want == got))
    }

    /// Does it reach everything that `other` reaches?
    pub fn covers(&self, other: &Filter) -> bool {
        let mut theirs = other.text.split('/');
        self.text.split('/').all(|want| theirs.next().is_some_and(|got| want == "+" || want == got))
    }

    /// Is there a topic that both reach?
    pub fn meets(&self, other: &Filter) -> bool {
        let pairs = self.text.split('/').zip(other.text.split('/'));
        pairs.into_iter().all(|(a, b)| a == "+" || b == "+" || a == b)
    }

    /// The longest beginning without `+`, for looking up by index: `livesys/+/x` gives `livesys`, `+/x` nothing.
    pub fn fixed_prefix(&self) -> &str {
        if !self.wild {
            return &self.text;
        }
        match self.text.find('+') {
            Some(0) | None => "",
            Some(i) => &self.text[..i - 1],
        }
    }
}

impl From<Topic> for Filter {
    fn from(topic: Topic) -> Filter {
        Filter { text: topic.0, wild: false }
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Topic, TopicError> {
        check(text, false).map(|_| Topic(text.into()))
    }
}

impl FromStr for Filter {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Filter, TopicError> {
        check(text, true).map(|wild| Filter { text: text.into(), wild })
    }
}

macro_rules! as_text {
    ($name:ident, $field:tt) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.$field)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.$field)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.$field)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(Topic, 0);
as_text!(Filter, text);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_rule_has_its_own_words() {
        let cases = [
            ("", TopicError::Empty),
            ("/a", TopicError::EmptySegment(1)),
            ("a/", TopicError::EmptySegment(2)),
            ("a//b", TopicError::EmptySegment(2)),
            ("a/..", TopicError::DotSegment(2)),
            (".", TopicError::DotSegment(1)),
            ("a b", TopicError::BadCharacter(1, ' ')),
            ("a/ü", TopicError::BadCharacter(2, 'ü')),
            ("a/+", TopicError::Wildcard),
            ("a/#", TopicError::BadCharacter(2, '#')),
        ];
        for (text, rule) in cases {
            assert_eq!(text.parse::<Topic>(), Err(rule), "{text}");
        }
        assert_eq!("x".repeat(256).parse::<Topic>(), Err(TopicError::TooLong(256)));
        assert_eq!("x".repeat(129).parse::<Topic>(), Err(TopicError::SegmentTooLong(1)));
        assert_eq!(vec!["a"; 17].join("/").parse::<Topic>(), Err(TopicError::TooDeep));
        assert!(vec!["a"; 16].join("/").parse::<Topic>().is_ok());
        assert!("x".repeat(128).parse::<Topic>().is_ok());
    }

    #[test]
    fn a_task_is_below_those_above_it() {
        assert_eq!(levels("a/b/c").collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
    }

    #[test]
    fn a_task_is_told_of_its_own_segments() {
        assert_eq!(Topic::of_job("a/b", 7).map(|t| t.to_string()), Ok("task/a/b/7".into()));
        assert_eq!(Topic::of_job("x y", 7), Err(TopicError::BadCharacter(1, ' ')));
        assert_eq!(Topic::of_job("a//b", 7), Err(TopicError::EmptySegment(2)));
        assert_eq!(Topic::of_job("", 7), Err(TopicError::Empty));
        assert_eq!(Topic::of_job(&vec!["a"; 15].join("/"), 7), Err(TopicError::TooDeep));
    }

    #[test]
    fn paths_are_decoded_before_they_are_judged() {
        assert_eq!(Topic::from_path("a%3Ab/c").map(|t| t.to_string()), Ok("a:b/c".into()));
        assert_eq!(Topic::from_path("a%2Fb"), Err(TopicError::EncodedSlash));
        assert_eq!(Topic::from_path("a%2fb"), Err(TopicError::EncodedSlash));
        assert_eq!(Topic::from_path("a%2"), Err(TopicError::BadEncoding));
        assert_eq!(Topic::from_path("a%zz"), Err(TopicError::BadEncoding));
        assert_eq!(Topic::from_path("a%ff"), Err(TopicError::BadEncoding));
        assert_eq!(Filter::from_path("a/%2B").map(|f| f.is_wild()), Ok(true));
        assert_eq!(Topic::from_path("%2E%2E"), Err(TopicError::DotSegment(1)));
    }

    #[test]
    fn a_filter_hears_whole_segments_and_all_below() {
        let hears = |f: &str, t: &str| f.parse::<Filter>().unwrap().matches(&t.parse().unwrap());
        assert!(hears("h", "h") && hears("h", "h/i") && hears("h", "h/i/j"));
        assert!(!hears("h", "hx") && !hears("h/i", "h") && !hears("h/i", "h/ix"));
        assert!(hears("+", "h/i") && hears("h/+", "h/i/j") && hears("h/+/j", "h/i/j"));
        assert!(!hears("h/+", "h") && !hears("h/+/j", "h/i/k"));
    }

    #[test]
    fn levels_go_up_to_the_root() {
        let t: Topic = "a/b/c".parse().unwrap();
        assert_eq!(t.levels().collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
    }

    #[test]
    fn the_fixed_prefix_ends_before_the_wildcard() {
        let prefix = |f: &str| f.parse::<Filter>().unwrap().fixed_prefix().to_owned();
        assert_eq!(
            (prefix("a/b"), prefix("a/+/b"), prefix("+/b")),
            ("a/b".into(), "a".into(), String::new())
        );
    }

    proptest! {
        /// Matching by text agrees with the plain definition on segments.
        #[test]
        fn matching_is_the_segment_rule(
            filter in prop::collection::vec("a|b|ab|\\+", 1..5),
            topic in prop::collection::vec("a|b|ab", 1..6),
        ) {
            let expected = filter.len() <= topic.len()
                && filter.iter().zip(&topic).all(|(f, t)| f == "+" || f == t);
            let (filter, topic) = (filter.join("/"), topic.join("/"));
            let got = filter.parse::<Filter>().unwrap().matches(&topic.parse().unwrap());
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn no_path_makes_it_panic(path in ".{0,300}") {
            let topic = Topic::from_path(&path);
            let filter = Filter::from_path(&path);
            prop_assert!(topic.is_err() || filter.is_ok());
        }
    }
}

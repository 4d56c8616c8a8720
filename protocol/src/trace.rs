//! A trace context as W3C has it: `traceparent`, and the `tracestate` that travels with it and is nothing without it.
//!
//! Stores keep both in one text, the second behind a blank: one cannot be there without the other, and what was written before
//! there was a `tracestate` reads as it did (ADR 0020).

use std::fmt;

/// W3C asks for so much to be passed on; more is dropped.
const STATE_BYTES_MAX: usize = 512;
/// So many vendors may have a word in it.
const MEMBERS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;

/// Where in which trace somebody stands. Cannot be wrong: what is no context is none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// As stores keep it.
    text: Box<str>,
}

impl TraceContext {
    /// A `traceparent` of version 00 that names a trace and a span. A `tracestate` that is not well-formed, or too long, is
    /// dropped, as W3C asks: the trace goes on without it.
    pub fn new(traceparent: &str, tracestate: Option<&str>) -> Option<TraceContext> {
        if !is_traceparent(traceparent) {
            return None;
        }
        let text = match tracestate.and_then(well_formed) {
            Some(state) => format!("{traceparent} {state}"),
            None => traceparent.to_owned(),
        };
        Some(TraceContext { text: text.into() })
    }

    /// What a store has kept.
    pub fn from_text(text: &str) -> Option<TraceContext> {
        let (parent, state) = parts(text);
        TraceContext::new(parent, state)
    }

    /// As stores keep it.
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// Which trace, and which span in it.
    pub fn traceparent(&self) -> &str {
        parts(&self.text).0
    }

    /// What vendors say besides.
    pub fn tracestate(&self) -> Option<&str> {
        parts(&self.text).1
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// `traceparent` and `tracestate` of a text that a store has kept, unchecked.
pub(crate) fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once(' ').map_or((text, None), |(parent, state)| (parent, Some(state)))
}

/// Is this a W3C trace context, version 00? One that is all zeroes names nothing, and is none.
pub fn is_traceparent(text: &str) -> bool {
    let named = |part: &str| part.bytes().any(|b| b != b'0');
    looks_like_traceparent(text) && named(&text[3..35]) && named(&text[36..52])
}

pub(crate) fn looks_like_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    matches!(parts[..], ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2))
}

/// The list without the blanks around its members and without empty ones, if it is one.
fn well_formed(text: &str) -> Option<String> {
    let members: Vec<&str> =
        text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty()).collect();
    let good = (1..=MEMBERS_MAX).contains(&members.len()) && members.iter().all(|member| is_member(member));
    let state = members.join(",");
    (good && state.len() <= STATE_BYTES_MAX).then_some(state)
}

fn is_member(member: &str) -> bool {
    member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
}

/// `vendor` or `tenant@vendor`.
fn is_key(key: &str) -> bool {
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let mut parts = key.split('@');
    let good = |part: &str| begins(part) && part.bytes().all(allowed);
    key.len() <= KEY_BYTES_MAX
        && parts.next().is_some_and(good)
        && parts.next().is_none_or(good)
        && parts.next().is_none()
}

/// Printable ASCII without `,` and `=`.
fn is_value(value: &str) -> bool {
    let allowed = |b: u8| matches!(b, b' '..=b'~') && b != b',' && b != b'=';
    (1..=VALUE_BYTES_MAX).contains(&value.len()) && !value.ends_with(' ') && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn state(text: &str) -> Option<String> {
        TraceContext::new(PARENT, Some(text)).unwrap().tracestate().map(str::to_owned)
    }

    #[test]
    fn a_state_travels_with_its_parent_and_never_alone() {
        let context = TraceContext::new(PARENT, Some("congo=t61rcWkgMzE,rojo=00f067")).unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.tracestate(), Some("congo=t61rcWkgMzE,rojo=00f067"));
        assert_eq!(TraceContext::from_text(context.as_text()), Some(context));
        assert_eq!(TraceContext::new("00-abc", Some("congo=1")), None);
        assert_eq!(TraceContext::from_text(PARENT).unwrap().tracestate(), None);
    }

    #[test]
    fn a_state_is_kept_as_w3c_writes_it() {
        assert_eq!(state(" a=1 ,\tb@c=2, ,*x").as_deref(), None);
        assert_eq!(state(" a=1 ,\tb@c=2, ,1x=y z").as_deref(), Some("a=1,b@c=2,1x=y z"));
        let long = format!("a={}", "x".repeat(VALUE_BYTES_MAX));
        assert_eq!(state(&long).as_deref(), Some(&*long));
    }

    #[test]
    fn one_that_is_not_well_formed_is_dropped_and_the_trace_goes_on() {
        let many = vec!["a=1"; MEMBERS_MAX + 1].join(",");
        let long = vec![format!("a={}", "x".repeat(200)); 3].join(",");
        let value = format!("a={}", "x".repeat(VALUE_BYTES_MAX + 1));
        let bad = [
            "", " ", ",", "a", "a=", "=1", "A=1", "a=1=2", "a@=1", "@a=1", "a@b@c=1", "a=\u{7}", "a=é",
            "_a=1",
        ];
        for text in bad.into_iter().chain([&*many, &long, &value]) {
            assert_eq!(state(text), None, "{text:?}");
        }
    }

    proptest! {
        /// Whatever is sent, what is kept is bounded, says one thing, and reads back.
        #[test]
        fn what_is_kept_reads_back(text in "[ -~\\t]{0,600}") {
            let context = TraceContext::new(PARENT, Some(&text)).unwrap();
            prop_assert!(context.as_text().len() <= PARENT.len() + 1 + STATE_BYTES_MAX);
            prop_assert_eq!(context.traceparent(), PARENT);
            prop_assert_eq!(TraceContext::from_text(context.as_text()), Some(context));
        }
    }
}

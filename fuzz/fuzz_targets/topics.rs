//! Topics and filters: whatever is taken keeps the rules, comes back as it was, and matches as a plain model does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_protocol::{Filter, Topic};

fuzz_target!(|input: &str| {
    let (left, right) = input.split_once('\n').unwrap_or((input, input));
    for topic in [left.parse::<Topic>().ok(), Topic::from_path(left).ok()].into_iter().flatten() {
        keeps_the_rules(topic.as_str(), false);
        assert_eq!(topic.as_str().parse().as_ref(), Ok(&topic));
        assert_eq!(Topic::from_path(topic.as_str()).as_ref(), Ok(&topic), "nothing in it needs an escape");
        assert!(Filter::from(topic.clone()).matches(&topic));
        assert_eq!(topic.levels().count(), topic.as_str().split('/').count());
        for filter in [right.parse::<Filter>().ok(), Filter::from_path(right).ok()].into_iter().flatten() {
            keeps_the_rules(filter.as_str(), true);
            assert_eq!(filter.is_wild(), filter.as_str().split('/').any(|s| s == "+"));
            assert_eq!(
                filter.matches(&topic),
                model(filter.as_str(), topic.as_str()),
                "{filter:?} {topic:?}"
            );
            if filter.matches(&topic) {
                assert!(topic.as_str().starts_with(filter.fixed_prefix()));
            }
        }
    }
});

fn keeps_the_rules(text: &str, wildcards: bool) {
    assert!(text.len() <= 255);
    let segments: Vec<_> = text.split('/').collect();
    assert!((1..=16).contains(&segments.len()));
    for s in segments {
        let plain = s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~:@-".contains(&b));
        assert!(
            (1..=128).contains(&s.len()) && s != "." && s != ".." && (plain || wildcards && s == "+"),
            "{text:?}"
        );
    }
}

/// Segment by segment; a filter that is longer than the topic does not match.
fn model(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    filter.len() <= topic.len() && filter.iter().zip(&topic).all(|(f, t)| *f == "+" || f == t)
}

//! Which filters match a topic. Pure: no clock, no await, no lock.
//!
//! Filters without `+` are found by walking a topic's levels upwards; the others by the part before their first `+`,
//! so that a topic is compared only with filters that begin as it does. While nobody uses `+`, they cost one look.

use minium_protocol::{Filter, Topic};
use std::collections::HashMap;
use std::sync::Arc;

/// Something for each filter.
#[derive(Debug)]
pub(crate) struct Routes<V> {
    fixed: HashMap<Arc<str>, V>,
    wild: HashMap<Box<str>, Vec<(Filter, V)>>,
}

impl<V> Default for Routes<V> {
    fn default() -> Routes<V> {
        Routes { fixed: HashMap::new(), wild: HashMap::new() }
    }
}

impl<V> Routes<V> {
    /// Shows everything whose filter matches, nearest levels first.
    pub(crate) fn matching<'a>(&'a self, topic: &'a Topic, mut show: impl FnMut(&'a V)) {
        topic.levels().filter_map(|level| self.fixed.get(level)).for_each(&mut show);
        if self.wild.is_empty() {
            return;
        }
        for prefix in topic.levels().chain([""]) {
            let Some(filters) = self.wild.get(prefix) else { continue };
            filters.iter().filter(|(f, _)| f.matches(topic)).for_each(|(_, v)| show(v));
        }
    }

    /// What stands for this very filter.
    pub(crate) fn get(&self, filter: &Filter) -> Option<&V> {
        if !filter.is_wild() {
            return self.fixed.get(filter.as_str());
        }
        let filters = self.wild.get(filter.fixed_prefix())?;
        filters.iter().find(|(f, _)| f == filter).map(|(_, v)| v)
    }

    /// What stands for this very filter; `make` when nothing does.
    pub(crate) fn entry(&mut self, filter: &Filter, make: impl FnOnce() -> V) -> &mut V {
        if !filter.is_wild() {
            return self.fixed.entry(filter.as_str().into()).or_insert_with(make);
        }
        let filters = self.wild.entry(filter.fixed_prefix().into()).or_default();
        let at = filters.iter().position(|(f, _)| f == filter).unwrap_or(filters.len());
        if at == filters.len() {
            filters.push((filter.clone(), make()));
        }
        &mut filters[at].1
    }

    /// Nothing stands for this filter any more.
    pub(crate) fn remove(&mut self, filter: &Filter) {
        if !filter.is_wild() {
            self.fixed.remove(filter.as_str());
            return;
        }
        if let Some(filters) = self.wild.get_mut(filter.fixed_prefix()) {
            filters.retain(|(f, _)| f != filter);
            if filters.is_empty() {
                self.wild.remove(filter.fixed_prefix());
            }
        }
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        let wild = self.wild.values().flatten().map(|(f, v)| (f.as_str(), v));
        self.fixed.iter().map(|(f, v)| (&**f, v)).chain(wild)
    }

    /// The names of those without `+`, in no order.
    pub(crate) fn fixed(&self) -> impl Iterator<Item = &str> {
        self.fixed.keys().map(|name| &**name)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.fixed.len() + self.wild.values().map(Vec::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn segments(alphabet: &'static str, most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(alphabet, 1..most).prop_map(|s| s.join("/"))
    }

    proptest! {
        /// Routing is `Filter::matches`, whatever came and went.
        #[test]
        fn finds_exactly_the_filters_that_match(
            filters in prop::collection::vec(segments("a|b|ab|\\+", 5), 1..20),
            gone in prop::collection::vec(any::<bool>(), 20),
            topic in segments("a|b|ab", 6),
        ) {
            let topic: Topic = topic.parse().unwrap();
            let filters: Vec<Filter> = filters.iter().map(|f| f.parse().unwrap()).collect();
            let mut routes = Routes::default();
            for f in &filters {
                routes.entry(f, || f.to_string());
            }
            let mut left: BTreeSet<String> = filters.iter().map(|f| f.to_string()).collect();
            for (f, gone) in filters.iter().zip(gone) {
                if gone {
                    routes.remove(f);
                    left.remove(f.as_str());
                }
            }
            let mut found = Vec::new();
            routes.matching(&topic, |v| found.push(v.clone()));
            let set: BTreeSet<String> = found.iter().cloned().collect();
            prop_assert_eq!(set.len(), found.len(), "one was shown twice");
            let expected: BTreeSet<String> =
                left.iter().filter(|f| f.parse::<Filter>().unwrap().matches(&topic)).cloned().collect();
            prop_assert_eq!(set, expected);
            prop_assert_eq!(routes.len(), left.len());
            prop_assert_eq!(routes.iter().count(), left.len());
        }
    }
}

//! Subscriptions by a pattern: which topics it matches, found out anew when topics come or go.
//!
//! The syntax is that of RE2, as in Kafka; a pattern must match the whole name. What it takes to match one is bounded by the size that
//! a pattern is compiled to, and each name is matched once.

use std::collections::BTreeSet;

use headwater_protocol::error::ErrorCode;
use regex::bytes::{Regex, RegexBuilder};

use super::state::{Consumers, Subscriber};
use crate::{
    coordinator::groups::topics::Topics,
    model::{internal::is_internal, refusal::Refusal},
};

/// Most bytes of a pattern, and of what it is compiled to.
const PATTERN_BYTES_MAX: usize = 8 << 10;
const COMPILED_BYTES_MAX: usize = 64 << 10;
/// Most bytes of what matching finds out on its way: with few it finds the same out again and again.
const CACHE_BYTES_MAX: usize = 4 << 20;
/// Most patterns of one group that differ.
const PATTERNS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Pattern {
    /// None for what only another version takes.
    regex: Option<Regex>,
    /// Those that match.
    topics: BTreeSet<String>,
}

impl Pattern {
    fn new(text: &str, topics: &Topics) -> Pattern {
        let mut pattern = Pattern {
            regex: compile(text).ok(),
            topics: BTreeSet::new(),
        };
        pattern.add(topics.names());
        pattern
    }

    /// Takes in those that match.
    fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        // The clone has a cache of its own, which is gone with it.
        let Some(regex) = self.regex.clone() else { return };
        let matched = names.filter(|name| !is_internal(name) && regex.is_match(name.as_bytes()));
        self.topics.extend(matched.map(str::to_owned));
    }
}

fn compile(pattern: &str) -> Result<Regex, Refusal> {
    let invalid = |why: &str| {
        let message = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {why}.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        let message = format!(
            "SubscribedTopicRegex has {} bytes; at most {PATTERN_BYTES_MAX} are allowed.",
            pattern.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidRegularExpression, message));
    }
    let build_in = |pattern: &str, is_unicode| {
        let mut builder = RegexBuilder::new(pattern);
        builder
            .unicode(is_unicode)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX);
        builder.build()
    };
    let build = |pattern: &str| {
        // `\w` and its like are ASCII's in RE2, and small; classes that have names are not.
        let built = build_in(pattern, false).or_else(|_| build_in(pattern, true));
        built.map_err(|error| {
            let error = error.to_string();
            // The last line says what is wrong; those before it show where.
            let last = error.lines().last().unwrap_or_default();
            invalid(last.trim().trim_start_matches("error: ").trim_end_matches('.'))
        })
    };
    // By itself first: it must not end the group around it.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

impl Consumers {
    /// Whether a pattern can be taken in.
    pub(super) fn check_pattern(&self, pattern: &str) -> Result<(), Refusal> {
        if pattern.is_empty() || self.patterns.contains_key(pattern) {
            return Ok(());
        }
        if self.patterns.len() >= PATTERNS_MAX {
            let message = format!("The group subscribes by {PATTERNS_MAX} patterns, as many as it may.");
            return Err(Refusal::new(ErrorCode::InvalidRegularExpression, message));
        }
        compile(pattern).map(drop)
    }

    /// Takes in the patterns that members have now, and lets go of the others.
    pub(super) fn update_patterns(&mut self, topics: &Topics) {
        let wanted: BTreeSet<&String> = self
            .members
            .values()
            .filter_map(|member| member.subscriber.pattern.as_ref())
            .collect();
        let mut known = std::mem::take(&mut self.patterns);
        let pattern = |text: &String| {
            let pattern = known.remove(text).unwrap_or_else(|| Pattern::new(text, topics));
            (text.clone(), pattern)
        };
        self.patterns = wanted.into_iter().map(pattern).collect();
    }

    /// Finds out what all patterns match of the topics that have come or gone since they were as in `former`.
    pub(super) fn match_patterns(&mut self, former: &Topics, topics: &Topics) {
        let is_new = |name: &&str| former.find(name).is_none();
        let fresh: Vec<&str> = topics.names().filter(is_new).collect();
        for pattern in self.patterns.values_mut() {
            pattern.topics.retain(|name| topics.find(name).is_some());
            pattern.add(fresh.iter().copied());
        }
        self.update_patterns(topics);
    }

    /// All topics that a member subscribes to; some may not exist.
    pub(super) fn topics_of<'a>(&'a self, subscriber: &'a Subscriber) -> BTreeSet<&'a str> {
        let matched = subscriber.pattern.as_ref().and_then(|text| self.patterns.get(text));
        let matched = matched.into_iter().flat_map(|pattern| &pattern.topics);
        subscriber.topics.iter().chain(matched).map(String::as_str).collect()
    }

    /// All topics that anybody subscribes to.
    pub(crate) fn subscribed(&self) -> BTreeSet<&str> {
        let topics = self
            .members
            .values()
            .flat_map(|member| self.topics_of(&member.subscriber));
        topics.collect()
    }

    /// Notes the topics as they are. Whether they differ from what they were.
    pub(super) fn note_topics(&mut self, topics: &Topics) -> bool {
        let mut hash = Fnv::default();
        let subscribed = self.subscribed().into_iter();
        let subscribed: Vec<_> = subscribed.filter_map(|name| topics.find(name)).collect();
        for (id, count) in &subscribed {
            hash.add(id.as_uuid().as_bytes());
            hash.add(&count.to_be_bytes());
        }
        let hash = if subscribed.is_empty() { 0 } else { hash.0.cast_signed() };
        if std::mem::replace(&mut self.hash, hash) == hash {
            return false;
        }
        self.journal.note(super::Key::Epoch);
        true
    }
}

/// FNV-1a: it is stored, so it must be the same in every version.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

//! Whether routers may give messages of several topics one topic: keys of objects would be the same then.

use super::config::TransformSettings;
use super::record::{Part, Record};
use super::transform::apply;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

/// Settled by the configuration alone, so that the names of objects stay as they are when a range is made again.
pub(super) fn may_meet(topics: &[String], transforms: &[TransformSettings]) -> bool {
    let topics: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    if topics.iter().any(|topic| topic.starts_with('^')) {
        // Which topics there will be, nobody knows.
        return transforms.iter().any(merges);
    }
    let mut seen = HashSet::new();
    let meet_now = topics.iter().filter_map(|topic| routed(transforms, topic)).any(|topic| !seen.insert(topic));
    meet_now || topics.len() > 1 && depends_on_time(transforms)
}

/// Whether there are two topics that this router gives one name.
fn merges(transform: &TransformSettings) -> bool {
    match transform {
        TransformSettings::RegexRouter { .. } => true,
        TransformSettings::TimestampRouter { topic_format, .. } => !topic_format.contains("${topic}"),
        TransformSettings::InsertField { .. } | TransformSettings::ReplaceField { .. } => false,
    }
}

/// What a regular expression makes of a name with a time in it is not known before the time is.
fn depends_on_time(transforms: &[TransformSettings]) -> bool {
    let has_time = |transform: &TransformSettings| matches!(transform, TransformSettings::TimestampRouter { topic_format, .. } if topic_format.contains("${timestamp}"));
    let behind_it = transforms.iter().skip_while(|transform| !has_time(transform));
    behind_it.into_iter().any(|transform| matches!(transform, TransformSettings::RegexRouter { .. }))
}

/// The name that messages of a topic get, at one time that is the same for all. `None` where no topic can have it: such messages are not stored.
fn routed(transforms: &[TransformSettings], topic: &str) -> Option<String> {
    let mut record = Record {
        topic: Cow::Borrowed(topic),
        partition: 0,
        offset: 0,
        timestamp: Some(0),
        key: Part::default(),
        value: Part::default(),
    };
    apply(transforms, &mut record).ok()?;
    Some(record.topic.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::partitioner::Pattern;
    use regex::Regex;

    fn by_regex(regex: &str, replacement: &str) -> TransformSettings {
        let regex = Regex::new(&format!("^(?:{regex})$")).unwrap();
        TransformSettings::RegexRouter { regex, replacement: replacement.to_owned() }
    }

    fn by_time(topic_format: &str) -> TransformSettings {
        let timestamp = Pattern::java("yyyyMMdd").unwrap();
        TransformSettings::TimestampRouter { topic_format: topic_format.to_owned(), timestamp }
    }

    #[test]
    fn topics_meet_where_routers_may_give_them_one_name() {
        let all = || by_regex(".*", "all");
        let dated = || by_time("${topic}-${timestamp}");
        for (topics, transforms, expected) in [
            (&["a", "b"][..], vec![], false),
            (&["a", "b"], vec![all()], true),
            (&["a"], vec![all()], false),
            (&["a", "a"], vec![all()], false),
            (&["a", "b"], vec![by_regex("(.)", "all-${1}")], false),
            // Where one alone gets another name, that of a topic which keeps its own.
            (&["a-v1", "a"], vec![by_regex("(.*)-v1", "${1}")], true),
            (&["a", "b"], vec![by_regex("a", "b"), by_regex("b", "c")], true),
            (&["a", "b"], vec![by_regex("a", "x"), by_regex("b", "y")], false),
            (&["a", "b"], vec![dated()], false),
            (&["a", "b"], vec![by_time("day-${timestamp}")], true),
            (&["a", "b"], vec![by_time("all")], true),
            (&["a", "b"], vec![dated(), by_regex(".*-(2024.*)", "y${1}")], true),
            (&["a"], vec![dated(), by_regex(".*-(2024.*)", "y${1}")], false),
            (&["a", "b"], vec![by_regex("a", "x"), dated()], false),
            // A name that no topic can have stores nothing.
            (&["a", "b"], vec![by_regex(".*", "../x")], false),
            (&["^(m.*)$"], vec![], false),
            (&["^(m.*)$"], vec![dated()], false),
            (&["^(m.*)$"], vec![by_regex("m-(.*)", "${1}")], true),
            (&["^(m.*)$"], vec![by_time("day-${timestamp}")], true),
        ] {
            let given: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
            assert_eq!(may_meet(&given, &transforms), expected, "{topics:?} {transforms:?}");
        }
    }
}

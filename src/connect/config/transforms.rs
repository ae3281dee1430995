//! `transforms` and the keys below them.

use super::reader::Reader;
use crate::connect::partitioner::Pattern;
use regex::Regex;

/// Which side of a record a transform changes: the class's `$Key` or `$Value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// What is done to a record.
#[derive(Clone, Debug)]
pub enum TransformSettings {
    /// Adds fields.
    InsertField {
        /// To what.
        side: Side,
        /// Fields and what they get.
        fields: Vec<(FieldName, Inserted)>,
    },
    /// Leaves fields out, or gives them other names.
    ReplaceField {
        /// Of what.
        side: Side,
        /// These fields alone stay; none named: all do.
        include: Vec<String>,
        /// These fields do not.
        exclude: Vec<String>,
        /// Old names and new ones.
        renames: Vec<(String, String)>,
    },
    /// Gives the record another topic, by its time.
    TimestampRouter {
        /// Has `${topic}` and `${timestamp}`.
        topic_format: String,
        /// What `${timestamp}` is.
        timestamp: Pattern,
    },
    /// Gives the record another topic, where its own matches.
    RegexRouter {
        /// Matches the whole name.
        regex: Regex,
        /// Has `${1}` and so on.
        replacement: String,
    },
}

impl TransformSettings {
    /// The class of Connect's.
    pub fn class(&self) -> &'static str {
        let class = match self {
            TransformSettings::InsertField { side, .. } => Class::InsertField(*side),
            TransformSettings::ReplaceField { side, .. } => Class::ReplaceField(*side),
            TransformSettings::TimestampRouter { .. } => Class::TimestampRouter,
            TransformSettings::RegexRouter { .. } => Class::RegexRouter,
        };
        CLASSES.iter().find(|(_, known)| *known == class).map_or("", |(name, _)| name)
    }
}

/// A field's name, and whether it may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    /// The name.
    pub name: String,
    /// `field?` and `field` may be null, `field!` not.
    pub optional: bool,
}

/// What a field gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The record's topic.
    Topic,
    /// The number of its partition.
    Partition,
    /// Its offset.
    Offset,
    /// Its time.
    Timestamp,
    /// This text.
    Static(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    InsertField(Side),
    ReplaceField(Side),
    TimestampRouter,
    RegexRouter,
}

const CLASSES: [(&str, Class); 6] = [
    ("org.apache.kafka.connect.transforms.InsertField$Value", Class::InsertField(Side::Value)),
    ("org.apache.kafka.connect.transforms.InsertField$Key", Class::InsertField(Side::Key)),
    ("org.apache.kafka.connect.transforms.ReplaceField$Value", Class::ReplaceField(Side::Value)),
    ("org.apache.kafka.connect.transforms.ReplaceField$Key", Class::ReplaceField(Side::Key)),
    ("org.apache.kafka.connect.transforms.TimestampRouter", Class::TimestampRouter),
    ("org.apache.kafka.connect.transforms.RegexRouter", Class::RegexRouter),
];

/// All of `transforms`, in order.
pub(super) fn read(reader: &mut Reader) -> Vec<TransformSettings> {
    let mut read = Vec::new();
    for alias in reader.list("transforms") {
        read.extend(one(reader, &format!("transforms.{alias}")));
    }
    read
}

fn one(reader: &mut Reader, key: &str) -> Option<TransformSettings> {
    let below = |name: &str| format!("{key}.{name}");
    for name in ["predicate", "negate"] {
        if let Some(value) = reader.text(&below(name)) {
            reader.wrong(&below(name), &value, "no predicate (they are not supported)");
        }
    }
    let kind = below("type");
    let Some(value) = reader.text(&kind) else {
        reader.required(&kind, "a transform's class");
        return None;
    };
    // `$Key` and `$Value` are part of the name, so the class is not told by its last part.
    let is = |full: &str| value == full || full.rsplit('.').next() == Some(value.as_str());
    let Some((_, class)) = CLASSES.iter().find(|(full, _)| is(full)) else {
        let known: Vec<_> = CLASSES.iter().map(|(full, _)| *full).collect();
        reader.wrong(&kind, &value, &format!("one of {} (others are not supported)", known.join(", ")));
        // Its keys belong to it.
        for name in reader.below(&below("")) {
            let _ = reader.exact(&below(&name));
        }
        return None;
    };
    match class {
        Class::InsertField(side) => insert_field(reader, key, *side),
        Class::ReplaceField(side) => Some(replace_field(reader, key, *side)),
        Class::TimestampRouter => timestamp_router(reader, key),
        Class::RegexRouter => regex_router(reader, key),
    }
}

fn insert_field(reader: &mut Reader, key: &str, side: Side) -> Option<TransformSettings> {
    let mut fields = Vec::new();
    for (name, inserted) in [
        ("topic.field", Inserted::Topic),
        ("partition.field", Inserted::Partition),
        ("offset.field", Inserted::Offset),
        ("timestamp.field", Inserted::Timestamp),
    ] {
        fields.extend(reader.text(&format!("{key}.{name}")).map(|text| (field_name(&text), inserted)));
    }
    let (field, value) = (reader.text(&format!("{key}.static.field")), reader.exact(&format!("{key}.static.value")));
    let _ = reader.bool(&format!("{key}.replace.null.with.default"), true);
    match (field, value) {
        (Some(field), Some(value)) => fields.push((field_name(&field), Inserted::Static(value))),
        (Some(_), None) => drop(reader.required(&format!("{key}.static.value"), "the value of static.field")),
        (None, _) => {}
    }
    if fields.is_empty() {
        reader.problems.push(format!(
            "{key}: expected at least one of topic.field, partition.field, offset.field, timestamp.field and static.field"
        ));
        return None;
    }
    Some(TransformSettings::InsertField { side, fields })
}

fn field_name(text: &str) -> FieldName {
    let optional = !text.ends_with('!');
    FieldName { name: text.trim_end_matches(['!', '?']).to_owned(), optional }
}

fn replace_field(reader: &mut Reader, key: &str, side: Side) -> TransformSettings {
    // Each has the name that it had before Kafka 3.0 too.
    let mut either = |name: &str, old: &str| {
        let (mut list, older) = (reader.list(&format!("{key}.{name}")), reader.list(&format!("{key}.{old}")));
        list.extend(older);
        list
    };
    let (include, exclude) = (either("include", "whitelist"), either("exclude", "blacklist"));
    let _ = reader.bool(&format!("{key}.replace.null.with.default"), true);
    let mut renames = Vec::new();
    for item in reader.list(&format!("{key}.renames")) {
        match item.split_once(':') {
            Some((old, new)) if !old.trim().is_empty() && !new.trim().is_empty() => {
                renames.push((old.trim().to_owned(), new.trim().to_owned()));
            }
            _ => reader.wrong(&format!("{key}.renames"), &item, "old:new pairs with commas between them"),
        }
    }
    TransformSettings::ReplaceField { side, include, exclude, renames }
}

fn timestamp_router(reader: &mut Reader, key: &str) -> Option<TransformSettings> {
    let topic_format = reader.text(&format!("{key}.topic.format")).unwrap_or_else(|| "${topic}-${timestamp}".to_owned());
    let name = format!("{key}.timestamp.format");
    let text = reader.text(&name).unwrap_or_else(|| "yyyyMMdd".to_owned());
    match Pattern::java(&text) {
        Ok(timestamp) => Some(TransformSettings::TimestampRouter { topic_format, timestamp }),
        Err(why) => {
            reader.wrong(&name, &text, &why);
            None
        }
    }
}

fn regex_router(reader: &mut Reader, key: &str) -> Option<TransformSettings> {
    let name = format!("{key}.regex");
    let text = reader.required(&name, "a regular expression");
    let replacement = reader.exact(&format!("{key}.replacement")).unwrap_or_default();
    match Regex::new(&format!("^(?:{text})$")) {
        Ok(regex) => Some(TransformSettings::RegexRouter { regex, replacement: braced(&replacement) }),
        Err(_) => {
            reader.wrong(&name, &text, "a regular expression");
            None
        }
    }
}

/// Java's `$1x` is the first group and an x; to the crate regex it is a group named 1x.
fn braced(replacement: &str) -> String {
    let mut out = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => match rest.next() {
                Some('$') => out.push_str("$$"),
                Some(literal) => out.push(literal),
                None => {}
            },
            '$' => {
                let mut group = String::new();
                while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                    group.push(digit);
                }
                out.push('$');
                if !group.is_empty() {
                    out.push_str(&format!("{{{group}}}"));
                }
            }
            literal => out.push(literal),
        }
    }
    out
}

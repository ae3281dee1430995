//! What is done to a record between its message and its file, as Kafka Connect's own transforms do it.

use super::config::{Inserted, Side, TransformSettings};
use super::record::{Part, Record};
use super::schema::{Kind, Schema};
use super::value::Value;
use crate::connect::config::FieldName;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::sync::Arc;

/// Does all of them.
///
/// # Errors
/// The class of the one that cannot be done to this record, and why.
pub(super) fn apply(transforms: &[TransformSettings], record: &mut Record<'_>) -> Result<(), (&'static str, String)> {
    transforms.iter().try_for_each(|transform| one(transform, record).map_err(|why| (transform.class(), why)))
}

/// Whether any of them needs the key.
pub(super) fn needs_key(transforms: &[TransformSettings]) -> bool {
    use TransformSettings::{InsertField, ReplaceField};
    transforms
        .iter()
        .any(|transform| matches!(transform, InsertField { side: Side::Key, .. } | ReplaceField { side: Side::Key, .. }))
}

fn one(transform: &TransformSettings, record: &mut Record<'_>) -> Result<(), String> {
    match transform {
        TransformSettings::InsertField { side, fields } => insert(record, *side, fields),
        TransformSettings::ReplaceField { side, include, exclude, renames } => {
            let stays = |name: &str| {
                !exclude.iter().any(|field| field == name) && (include.is_empty() || include.iter().any(|field| field == name))
            };
            let renamed = |name: &str| {
                let new = renames.iter().find(|(old, _)| old == name).map(|(_, new)| new.as_str());
                stays(name).then(|| new.unwrap_or(name).to_owned())
            };
            replace(part(record, *side), &renamed)
        }
        TransformSettings::TimestampRouter { topic_format, timestamp } => {
            let ms = record.timestamp.ok_or("TimestampRouter: the message has no time")?;
            let time = Timestamp::from_millisecond(ms).map_err(|error| format!("TimestampRouter: timestamp={ms}: {error}"))?;
            let text = timestamp.format(&time.to_zoned(TimeZone::UTC));
            let routed = topic_format.replace("${topic}", &record.topic).replace("${timestamp}", &text);
            route(record, routed)
        }
        TransformSettings::RegexRouter { regex, replacement } => {
            let routed = regex.replace(&record.topic, replacement.as_str()).into_owned();
            route(record, routed)
        }
    }
}

fn route(record: &mut Record<'_>, topic: String) -> Result<(), String> {
    // A name that Kafka would not take could lead elsewhere in the bucket.
    let is_legal = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(is_legal) {
        return Err(format!("topic={topic:?}: a router made a name that no topic can have"));
    }
    record.topic = Cow::Owned(topic);
    Ok(())
}

fn part<'r>(record: &'r mut Record<'_>, side: Side) -> &'r mut Part {
    match side {
        Side::Key => &mut record.key,
        Side::Value => &mut record.value,
    }
}

fn insert(record: &mut Record<'_>, side: Side, fields: &[(FieldName, Inserted)]) -> Result<(), String> {
    let made: Vec<(String, Value, Schema)> = fields
        .iter()
        .map(|(field, inserted)| {
            let (value, kind) = match inserted {
                Inserted::Topic => (Value::from(&*record.topic), Kind::String),
                Inserted::Partition => (Value::from(i64::from(record.partition)), Kind::Int(32)),
                Inserted::Offset => (Value::from(record.offset), Kind::Int64),
                Inserted::Timestamp => (record.timestamp.map_or(Value::Null, Value::from), Kind::Timestamp),
                Inserted::Static(text) => (Value::from(text.as_str()), Kind::String),
            };
            if value == Value::Null && !field.optional {
                return Err(format!("InsertField: {} is null, and {}! is not optional", field.name, field.name));
            }
            Ok((field.name.clone(), value, Schema { optional: field.optional, ..Schema::optional(kind) }))
        })
        .collect::<Result<_, _>>()?;
    let part = part(record, side);
    let Some(value) = &mut part.value else { return Ok(()) };
    let Value::Record(values) = value else {
        return Err("InsertField: expected an object to insert fields into".to_owned());
    };
    for (name, value, _) in &made {
        set(values, name, value.clone());
    }
    if let Some(schema) = &part.schema
        && let Kind::Struct(known) = &schema.kind
    {
        let mut known = known.clone();
        for (name, _, schema) in made {
            set(&mut known, &name, Arc::new(schema));
        }
        part.schema = Some(Arc::new(Schema { kind: Kind::Struct(known), ..(**schema).clone() }));
    }
    Ok(())
}

fn set<T>(fields: &mut Vec<(String, T)>, name: &str, value: T) {
    match fields.iter_mut().find(|(known, _)| known == name) {
        Some(field) => field.1 = value,
        None => fields.push((name.to_owned(), value)),
    }
}

/// Keeps the fields that get a name, under that name.
fn replace(part: &mut Part, renamed: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let Some(value) = &mut part.value else { return Ok(()) };
    let Value::Record(values) = value else {
        return Err("ReplaceField: expected an object to replace fields of".to_owned());
    };
    if let Some(schema) = &part.schema
        && let Kind::Struct(fields) = &schema.kind
    {
        let mut kept: Vec<(String, Arc<Schema>)> = Vec::with_capacity(fields.len());
        for (name, field) in fields {
            let Some(new) = renamed(name) else { continue };
            if kept.iter().any(|(known, _)| *known == new) {
                return Err(format!(
                    "ReplaceField: renames: {name} would be a second field {new}: expected a name that no other has"
                ));
            }
            kept.push((new, field.clone()));
        }
        part.schema = Some(Arc::new(Schema { kind: Kind::Struct(kept), ..(**schema).clone() }));
    }
    // Without a schema the later of two counts, as in Connect.
    let mut kept = Vec::with_capacity(values.len());
    for (name, value) in std::mem::take(values) {
        if let Some(new) = renamed(&name) {
            set(&mut kept, &new, value);
        }
    }
    *values = kept;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    fn record(value: &str, schema: Option<Schema>) -> Record<'static> {
        Record {
            topic: Cow::Borrowed("orders-v1"),
            partition: 3,
            offset: 7,
            timestamp: Some(1_709_640_429_045),
            key: Part { schema: None, value: Some(Value::Record(vec![("k".into(), Value::from(1))])) },
            value: Part { schema: schema.map(Arc::new), value: Some(serde_json::from_str(value).unwrap()) },
        }
    }

    fn field(name: &str) -> FieldName {
        FieldName { name: name.into(), optional: true }
    }

    #[test]
    fn fields_are_inserted_into_value_and_schema() {
        let fields = vec![
            (field("topic"), Inserted::Topic),
            (field("p"), Inserted::Partition),
            (field("o"), Inserted::Offset),
            (field("at"), Inserted::Timestamp),
            (field("a"), Inserted::Static("new".into())),
        ];
        let transforms = [TransformSettings::InsertField { side: Side::Value, fields }];
        let schema = Schema::infer(&serde_json::from_str(r#"{"a":1}"#).unwrap()).unwrap();
        let mut record = record(r#"{"a":1}"#, Some(schema));
        apply(&transforms, &mut record).unwrap();
        let expected = r#"{"a":"new","topic":"orders-v1","p":3,"o":7,"at":1709640429045}"#;
        assert_eq!(record.value.value.as_ref().unwrap().to_string(), expected);
        let schema = record.value.schema.unwrap();
        let kinds: Vec<_> = schema.fields().unwrap().iter().map(|(name, field)| (&**name, field.kind.clone())).collect();
        let expected =
            [("a", Kind::String), ("topic", Kind::String), ("p", Kind::Int(32)), ("o", Kind::Int64), ("at", Kind::Timestamp)];
        assert_eq!(kinds, expected);
        assert!(!needs_key(&transforms));
    }

    #[test]
    fn a_tombstone_has_no_fields_and_a_number_cannot_have_any() {
        let fields = vec![(FieldName { name: "t".into(), optional: false }, Inserted::Timestamp)];
        let transforms = [TransformSettings::InsertField { side: Side::Value, fields }];
        let mut tombstone = record("null", None);
        tombstone.value.value = None;
        assert_eq!(apply(&transforms, &mut tombstone), Ok(()));
        let (class, why) = apply(&transforms, &mut record("1", None)).unwrap_err();
        assert!(class.ends_with("InsertField$Value") && why.contains("expected an object"), "{class}: {why}");
        let mut timeless = Record { timestamp: None, ..record("{}", None) };
        assert!(apply(&transforms, &mut timeless).unwrap_err().1.contains("t is null"));
    }

    #[test]
    fn fields_are_left_out_and_renamed() {
        let replace = |include: &[&str], exclude: &[&str], side| TransformSettings::ReplaceField {
            side,
            include: include.iter().map(|name| (*name).to_owned()).collect(),
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
            renames: vec![("b".into(), "c".into()), ("k".into(), "id".into())],
        };
        for (include, exclude, expected) in [
            (&[][..], &["a"][..], r#"{"c":2,"d":3}"#),
            (&["a", "b"], &[], r#"{"a":1,"c":2}"#),
            (&["a", "b"], &["b"], r#"{"a":1}"#),
        ] {
            let mut record = record(r#"{"a":1,"b":2,"d":3}"#, None);
            apply(&[replace(include, exclude, Side::Value)], &mut record).unwrap();
            assert_eq!(record.value.value.unwrap().to_string(), expected);
        }
        let transforms = [replace(&[], &[], Side::Key)];
        let mut record = record("{}", None);
        apply(&transforms, &mut record).unwrap();
        assert_eq!(record.key.value.unwrap().to_string(), r#"{"id":1}"#);
        assert!(needs_key(&transforms));
    }

    #[test]
    fn a_name_that_is_taken_is_the_later_ones_without_a_schema_and_refused_with_one() {
        let transforms = [TransformSettings::ReplaceField {
            side: Side::Value,
            include: Vec::new(),
            exclude: Vec::new(),
            renames: vec![("a".into(), "b".into())],
        }];
        for (value, expected) in [(r#"{"a":1,"b":2}"#, r#"{"b":2}"#), (r#"{"b":2,"a":1}"#, r#"{"b":1}"#)] {
            let mut plain = record(value, None);
            apply(&transforms, &mut plain).unwrap();
            assert_eq!(plain.value.value.unwrap().to_string(), expected);
            let schema = Schema::infer(&serde_json::from_str(value).unwrap()).unwrap();
            let (class, why) = apply(&transforms, &mut record(value, Some(schema))).unwrap_err();
            assert!(class.ends_with("ReplaceField$Value") && why.contains("a second field b"), "{class}: {why}");
        }
    }

    #[test]
    fn routers_change_the_topic() {
        let routed = |regex: &str, replacement: &str| {
            let regex = Regex::new(&format!("^(?:{regex})$")).unwrap();
            let mut record = record("{}", None);
            apply(&[TransformSettings::RegexRouter { regex, replacement: replacement.into() }], &mut record)?;
            Ok::<_, (&str, String)>(record.topic.into_owned())
        };
        assert_eq!(routed("(.*)-v1", "${1}_2").unwrap(), "orders_2");
        assert_eq!(routed("orders", "x").unwrap(), "orders-v1", "the whole name must match");
        assert!(routed(".*", "../etc").unwrap_err().1.contains("no topic can have"));
        let timestamp = crate::connect::partitioner::Pattern::java("yyyyMMdd").unwrap();
        let mut record = record("{}", None);
        let router = TransformSettings::TimestampRouter { topic_format: "${topic}-${timestamp}".into(), timestamp };
        apply(&[router], &mut record).unwrap();
        assert_eq!(record.topic, "orders-v1-20240305");
    }
}

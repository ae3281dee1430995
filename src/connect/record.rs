//! A message whose key and value were read.

use super::schema::Schema;
use super::value::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// A record on its way from a message to a file.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Its topic, which a router may change.
    pub topic: Cow<'a, str>,
    /// The number of its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970, if the message has a time.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Part,
    /// Its value.
    pub value: Part,
}

/// A key or a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The schema that it came with, if it did.
    pub schema: Option<Arc<Schema>>,
    /// What it is; `None` for none at all.
    pub value: Option<Value>,
}

//! Values that are told token by token.

use crate::json::ser::TOKENS;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Writes a value token by token, for a `Serialize` whose values may be nested so deep that one call within the other would not fit the caller's stack: it
/// walks them with a list of its own, and nothing is on the stack for what is open.
///
/// It is for predlog's own encoder, which still bounds the depth; other serializers get a struct that means nothing. What is opened must be closed, and each
/// value within an object has its key before it.
///
/// ```
/// use predlog::record::Tokens;
/// use serde::ser::{Serialize, Serializer};
///
/// /// So many lists, one within the other.
/// struct Nested(usize);
///
/// impl Serialize for Nested {
///     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         let mut tokens = Tokens::new(serializer)?;
///         for _ in 0..self.0 {
///             tokens.open_list()?;
///         }
///         tokens.value(&1)?;
///         for _ in 0..self.0 {
///             tokens.close_list()?;
///         }
///         tokens.end()
///     }
/// }
///
/// let prediction = predlog::Prediction::new("wine", "1", &Nested(60), &5.2);
/// # let _ = prediction;
/// ```
pub struct Tokens<S: Serializer>(S::SerializeStruct);

impl<S: Serializer> Tokens<S> {
    /// Begins a value.
    ///
    /// # Errors
    /// Here as below: what the serializer says.
    pub fn new(serializer: S) -> Result<Self, S::Error> {
        serializer.serialize_struct(TOKENS, 0).map(Tokens)
    }

    /// Begins a list.
    pub fn open_list(&mut self) -> Result<(), S::Error> {
        self.0.serialize_field("[", &())
    }

    /// Ends the list that was opened last.
    pub fn close_list(&mut self) -> Result<(), S::Error> {
        self.0.serialize_field("]", &())
    }

    /// Begins an object.
    pub fn open_object(&mut self) -> Result<(), S::Error> {
        self.0.serialize_field("{", &())
    }

    /// Ends the object that was opened last.
    pub fn close_object(&mut self) -> Result<(), S::Error> {
        self.0.serialize_field("}", &())
    }

    /// The key of the value that comes next.
    pub fn key(&mut self, key: &str) -> Result<(), S::Error> {
        self.0.serialize_field("key", key)
    }

    /// A value, be it a scalar or a whole tree.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field("value", value)
    }

    /// Ends the value.
    pub fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::ser::{Encoded, to_json};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A value that is walked without recursion.
    struct Walked<'a>(&'a Value);

    enum Step<'a> {
        Value(&'a Value),
        Key(&'a str),
        CloseList,
        CloseObject,
    }

    impl Serialize for Walked<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut tokens = Tokens::new(serializer)?;
            let mut steps = vec![Step::Value(self.0)];
            while let Some(step) = steps.pop() {
                match step {
                    Step::Value(Value::Array(elements)) => {
                        tokens.open_list()?;
                        steps.push(Step::CloseList);
                        steps.extend(elements.iter().rev().map(Step::Value));
                    }
                    Step::Value(Value::Object(fields)) => {
                        tokens.open_object()?;
                        steps.push(Step::CloseObject);
                        steps.extend(fields.iter().rev().flat_map(|(key, value)| [Step::Value(value), Step::Key(key)]));
                    }
                    Step::Value(scalar) => tokens.value(scalar)?,
                    Step::Key(key) => tokens.key(key)?,
                    Step::CloseList => tokens.close_list()?,
                    Step::CloseObject => tokens.close_object()?,
                }
            }
            tokens.end()
        }
    }

    fn encoded<T: Serialize>(value: &T, limit: usize) -> (String, Encoded) {
        let mut out = Vec::new();
        let encoded = to_json(&mut out, value, limit).unwrap();
        (String::from_utf8(out).unwrap(), encoded)
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(
            json!([]),
            |inner, level| if level % 2 == 0 { json!([1, inner, "x"]) } else { json!({"a": 1, "b": inner, "c": {}}) },
        )
    }

    #[test]
    fn the_value_stands_among_others() {
        let value = json!({"a\"": [1, [], {}, "x", null], "b": {"c": [[true], {"d": 1.5}]}});
        assert_eq!(encoded(&Walked(&value), 1 << 20), (value.to_string(), Encoded::Whole));
        assert_eq!(encoded(&[Walked(&value), Walked(&json!(7))], 1 << 20).0, json!([value, 7]).to_string());
    }

    #[test]
    fn what_is_too_large_or_too_deep_has_the_digest_that_it_has_otherwise() {
        for (value, limit) in
            [(nested(64), 1 << 20), (nested(65), 1 << 20), (nested(512), 1 << 20), (nested(513), 1 << 20), (nested(20), 50)]
        {
            assert_eq!(encoded(&Walked(&value), limit), encoded(&value, limit));
        }
        assert_eq!(encoded(&Walked(&nested(512)), 1 << 20).1, Encoded::Digest);
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_does(text in ".*", numbers in proptest::collection::vec(any::<i64>(), 0..5)) {
            let value = json!([{"k": numbers, "": {&text: text}}, numbers, []]);
            prop_assert_eq!(encoded(&Walked(&value), 1 << 20).0, value.to_string());
        }
    }
}

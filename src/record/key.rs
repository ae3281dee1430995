//! Names that many records share.

use crate::json::escape::write_str;
use crate::json::ser::KEY;
use serde::ser::{Serialize, Serializer};

/// The name of a field of `inputs` or `outputs`, such as a feature's, made JSON once: in each record that has it, it costs a copy.
///
/// It is a key of a map for predlog's own encoder. Other serializers get its JSON, quotes and all.
///
/// ```
/// use predlog::record::Key;
/// use serde::ser::{Serialize, SerializeMap, Serializer};
///
/// struct Row<'a>(&'a [(Key, Vec<f64>)], usize);
///
/// impl Serialize for Row<'_> {
///     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         let mut row = serializer.serialize_map(None)?;
///         for (name, column) in self.0 {
///             row.serialize_entry(name, &column[self.1])?;
///         }
///         row.end()
///     }
/// }
///
/// let columns = [(Key::new("alcohol"), vec![9.4, 9.8]), (Key::new("ph"), vec![3.51, 3.2])];
/// let row = Row(&columns, 1);
/// let prediction = predlog::Prediction::new("wine", "1", &row, &5.2);
/// # let _ = prediction;
/// ```
#[derive(Clone, Debug)]
pub struct Key(Box<str>);

impl Key {
    /// The key whose text is `name`: any text.
    pub fn new(name: &str) -> Self {
        let mut json = Vec::with_capacity(name.len() + 2);
        write_str(&mut json, name);
        Key(String::from_utf8_lossy(&json).into())
    }
}

impl Serialize for Key {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(KEY, &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::ser::to_json;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Pair<'a>(&'a Key, &'a str);

    impl Serialize for Pair<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(self.0, self.1)])
        }
    }

    proptest! {
        #[test]
        fn is_written_as_the_text_would_be(name in "[\\x00-\\x7f\u{80}-\u{10ffff}\"\\\\]{0,70}") {
            let (mut ours, mut plain) = (Vec::new(), Vec::new());
            to_json(&mut ours, &Pair(&Key::new(&name), "x"), 1 << 20).unwrap();
            to_json(&mut plain, &BTreeMap::from([(&name, "x")]), 1 << 20).unwrap();
            prop_assert_eq!(ours, plain);
        }
    }
}

//! The SQL of a model's view. It must work in every SQLite since 3.38, the first with `->>`: the view is read by whatever program a person has.

use super::line::{INPUTS, KEYS, unescape};
use super::views::WHOLE;
use crate::json::escape::write_str;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

/// The columns of every view, with their expressions; the features stand behind the first three.
const COLUMNS: [(&str, &str); 13] = [
    // strftime knows milliseconds only, and both / and % round towards zero.
    (
        "time",
        "strftime('%Y-%m-%dT%H:%M:%S', (timestamp - (timestamp % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || \
         printf('.%06dZ', (timestamp % 1000000 + 1000000) % 1000000)",
    ),
    ("id", "id"),
    ("model_version", "model_version"),
    ("request_id", "request_id"),
    ("row_index", "row_index"),
    ("status_code", "status_code"),
    ("error", "error"),
    ("latency_ms", "latency_ms"),
    ("sample_weight", "sample_weight"),
    ("metadata", "metadata"),
    ("traceparent", "traceparent"),
    ("writer", "writer"),
    ("seq", "seq"),
];
const BEFORE_FEATURES: usize = 3;

/// A key of `inputs` or `outputs`, and the column that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    /// [`INPUTS`] or `OUTPUTS`.
    pub(super) field: usize,
    /// A JSON string as it stood in a line, with its quotes, or `$`.
    pub(super) key: String,
    /// The column's name.
    pub(super) column: String,
}

/// The columns that a model's keys have.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// By the field, whether the key stands for a value that is not an object, and the key's text.
    by_name: HashMap<(usize, bool, String), String>,
    /// In lower case: SQL does not tell cases apart.
    taken: HashSet<String>,
    keys: HashSet<(usize, String)>,
}

impl Columns {
    pub(super) fn of(features: &[Feature]) -> Self {
        let mut columns = Columns::default();
        columns.taken.extend(COLUMNS.iter().map(|(fixed, _)| (*fixed).to_owned()));
        features.iter().for_each(|feature| columns.add(feature));
        columns
    }

    fn add(&mut self, feature: &Feature) {
        let Feature { field, key, column } = feature;
        self.by_name.insert((*field, is_whole(key), name_of(key)), column.clone());
        self.taken.insert(column.to_ascii_lowercase());
        self.keys.insert((*field, key.clone()));
    }

    /// Gives a new key its column, `None` if it has one: named as the key, or `inputs_<key>` or `outputs_<key>` where that is taken (in any case of letters),
    /// or that with a number. Two ways to write a key in JSON share a column.
    pub(super) fn feature(&mut self, field: usize, key: String) -> Option<Feature> {
        if self.keys.contains(&(field, key.clone())) {
            return None;
        }
        let same = (field, is_whole(&key), name_of(&key));
        let column = self.by_name.get(&same).cloned().unwrap_or_else(|| {
            let base = without_nul(&same.2);
            let prefixed = format!("{}_{base}", KEYS[field]);
            let names = [base, prefixed.clone()].into_iter().chain((2..).map(|number| format!("{prefixed}_{number}")));
            let taken = |column: &String| column.is_empty() || self.taken.contains(&column.to_ascii_lowercase());
            names.into_iter().find(|column| !taken(column)).unwrap_or_default()
        });
        let feature = Feature { field, key, column };
        self.add(&feature);
        Some(feature)
    }
}

fn is_whole(key: &str) -> bool {
    key.as_bytes() == WHOLE
}

/// The key's text; `value` for a value that is not an object.
fn name_of(key: &str) -> String {
    if key.as_bytes() == WHOLE {
        return "value".to_owned();
    }
    let mut name = String::new();
    unescape(key.as_bytes(), &mut name);
    name
}

/// SQL text ends at a NUL, so a name shows the symbol for it instead.
pub(super) fn without_nul(name: &str) -> String {
    name.replace('\0', "\u{2400}")
}

/// `text` as a JSON string.
pub(super) fn json_string(text: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(text.len() + 2);
    write_str(&mut raw, &String::from_utf8_lossy(text));
    raw
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string in SQL; one with a NUL by its bytes.
fn literal(text: &str) -> String {
    if text.contains('\0') {
        let mut hex = String::with_capacity(text.len() * 2);
        for byte in text.bytes() {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        return format!("CAST(x'{hex}' AS TEXT)");
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// What a column shows; `keys` are the ways in which its key was written.
fn expression(field: usize, keys: &[&str]) -> String {
    let json = if field == INPUTS { "inputs" } else { "outputs" };
    match keys {
        [key] if key.as_bytes() == WHOLE => format!("CASE json_type({json}) WHEN 'object' THEN NULL ELSE {json} ->> '$' END"),
        [key] if !key.contains('\\') => {
            let path = literal(&format!("$.{key}"));
            // Half a surrogate pair is JSON, but no text: SQLite would give out bytes that are no UTF-8, and programs then fail at the whole query. GLOB sees
            // each as U+FFFD. Such a value is shown as its JSON.
            let broken = format!("{json} ->> {path} GLOB '*\u{fffd}*' AND (instr({json}, '\\ud') OR instr({json}, '\\uD'))");
            format!("CASE WHEN {broken} THEN {json} -> {path} ELSE {json} ->> {path} END")
        }
        // Paths compare a key as it is written (and SQLite's versions differ in how); json_each gives its text.
        _ => {
            let name = keys.first().map(|key| name_of(key)).unwrap_or_default();
            let object = format!("CASE json_type({json}) WHEN 'object' THEN {json} END");
            format!("(SELECT value FROM json_each({object}) WHERE key = {} LIMIT 1)", literal(&name))
        }
    }
}

pub(super) fn drop_view(view: &str) -> String {
    format!("DROP VIEW IF EXISTS {}", identifier(view))
}

pub(super) fn create_view(view: &str, model: &str, features: &[Feature]) -> String {
    let mut columns: Vec<String> = Vec::with_capacity(features.len() + COLUMNS.len());
    let fixed = |(name, expression): &(&str, &str)| format!("{expression} AS {}", identifier(name));
    columns.extend(COLUMNS[..BEFORE_FEATURES].iter().map(fixed));
    let mut spellings: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for feature in features {
        spellings.entry(&feature.column).or_default().push(&feature.key);
    }
    for feature in features {
        if let Some(keys) = spellings.remove(feature.column.as_str()) {
            columns.push(format!("{} AS {}", expression(feature.field, &keys), identifier(&feature.column)));
        }
    }
    columns.extend(COLUMNS[BEFORE_FEATURES..].iter().map(fixed));
    let columns = columns.join(",\n    ");
    format!("CREATE VIEW {} AS SELECT\n    {columns}\nFROM predictions WHERE model_name = {}", identifier(view), literal(model))
}

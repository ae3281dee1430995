//! Random JSON whose text is known to the byte, and what it means for an Arrow column to hold it.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    /// A string that no UTF-8 can hold, as written.
    Surrogate(&'static str),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

const NUMBERS: [&str; 20] = [
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.0",
    "0.1",
    "1e5",
    "1E-7",
    "2.50",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "100000000000000000000",
    "1e400",
    "1e-400",
    "0.1000000000000000001",
    "123456789.123456789",
];

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(&NUMBERS[..]).prop_map(str::to_owned),
        any::<i64>().prop_map(|value| value.to_string()),
        (0..100i64).prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:e}")),
        (-1e6..1e6f64).prop_map(|value| format!("{value:?}")),
        (-1e3..1e3f64).prop_map(|value| format!("{value:.17}")),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(&["a", "b", "c", "value", "a longer key of a model", "é", "q\"uote", ""][..]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

pub fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        2 => Just(Json::Null),
        2 => any::<bool>().prop_map(Json::Bool),
        6 => number().prop_map(Json::Number),
        4 => any::<String>().prop_map(Json::Text),
        1 => prop::sample::select(&["NaN", "Infinity", "-Infinity"][..]).prop_map(|text| Json::Text(text.to_owned())),
        1 => prop::sample::select(&["\"\\ud800\"", "\"\\uDC00x\"", "\"\\ud83d\\u0041\""][..]).prop_map(Json::Surrogate),
    ];
    let tree = leaf.prop_recursive(10, 48, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Json::List),
            3 => prop::collection::vec((key(), inner), 0..6).prop_map(Json::Object),
        ]
    });
    prop_oneof![4 => prop::collection::vec((key(), tree.clone()), 0..6).prop_map(Json::Object), 1 => tree]
}

impl Json {
    /// Its text; `style` picks white space and escapes.
    pub fn render(&self, style: u64) -> String {
        let mut out = String::new();
        self.write(&mut out, &mut fastrand::Rng::with_seed(style));
        out
    }

    fn write(&self, out: &mut String, random: &mut fastrand::Rng) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => write!(out, "{value}").expect("a String"),
            Json::Number(text) => out.push_str(text),
            Json::Surrogate(text) => out.push_str(text),
            Json::Text(text) => write_text(text, out, random),
            Json::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    comma(at, out, random);
                    item.write(out, random);
                }
                space(out, random);
                out.push(']');
            }
            Json::Object(fields) => {
                out.push('{');
                for (at, (key, item)) in fields.iter().enumerate() {
                    comma(at, out, random);
                    write_text(key, out, random);
                    space(out, random);
                    out.push(':');
                    space(out, random);
                    item.write(out, random);
                }
                space(out, random);
                out.push('}');
            }
        }
    }
}

fn space(out: &mut String, random: &mut fastrand::Rng) {
    out.push_str([" ", "\t", "", "", "", "", "", ""][random.usize(..8)]);
}

fn comma(at: usize, out: &mut String, random: &mut fastrand::Rng) {
    space(out, random);
    if at > 0 {
        out.push(',');
        space(out, random);
    }
}

fn write_text(text: &str, out: &mut String, random: &mut fastrand::Rng) {
    out.push('"');
    for c in text.chars() {
        if c < ' ' || c == '"' || c == '\\' || random.u8(..20) == 0 {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("a String");
            }
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

/// Digits without leading and trailing zeros, and the exponent that goes with them.
fn decimal(text: &str) -> (bool, String, i64) {
    let (negative, text) = (text.starts_with('-'), text.trim_start_matches('-'));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    let exponent: i64 = exponent.parse().expect("an exponent");
    let exponent = exponent - fraction.len() as i64 + (digits.len() - kept.len()) as i64;
    (negative, kept.to_owned(), if kept.is_empty() { 0 } else { exponent })
}

fn double_holds(text: &str, value: f64) -> bool {
    let written = decimal(text);
    let digits = text.bytes().take_while(|byte| !b"eE".contains(byte)).filter(u8::is_ascii_digit).count();
    // What programs print of doubles has up to 17 digits.
    let few = written.1.len() <= 17 && digits <= 19 && value.is_normal() && value.abs() < 9_007_199_254_740_992.0;
    let shortest = few || decimal(&format!("{value:e}")) == written;
    let integer = !text.contains(['.', 'e', 'E']) && decimal(&format!("{value:.0}")) == decimal(text);
    let integer_literal = !text.contains(['.', 'e', 'E']);
    text.parse::<f64>().is_ok_and(|nearest| nearest.to_bits() == value.to_bits())
        && if integer_literal { integer } else { shortest }
}

/// The column of a side, if it has one.
pub fn side<'b>(batch: &'b RecordBatch, name: &str) -> Option<&'b dyn Array> {
    batch.column_by_name(name).map(|array| array.as_ref())
}

/// Whether a top level value is all in the column.
pub fn held(json: &Json, column: Option<&dyn Array>, row: usize, bare: bool) -> bool {
    let (Some(column), false) = (column, matches!(json, Json::Null)) else {
        return matches!(json, Json::Null);
    };
    match json {
        Json::Object(fields) if bare => {
            fields.iter().all(|(key, item)| key != "value" || matches!(item, Json::Null)) && holds(json, column, row)
        }
        Json::Object(_) => holds(json, column, row),
        _ if bare => column.as_struct().column_by_name("value").is_some_and(|value| holds(json, value, row)),
        _ => false,
    }
}

fn holds(json: &Json, column: &dyn Array, row: usize) -> bool {
    if matches!(json, Json::Null) || column.is_null(row) {
        return matches!(json, Json::Null) && column.is_null(row);
    }
    match (json, column.data_type()) {
        (Json::Bool(value), DataType::Boolean) => column.as_boolean().value(row) == *value,
        (Json::Number(text), DataType::Int64) => column.as_primitive::<Int64Type>().value(row).to_string() == *text,
        (Json::Number(text), DataType::Float64) => double_holds(text, column.as_primitive::<Float64Type>().value(row)),
        (Json::Text(text), DataType::Float64) => {
            let value = column.as_primitive::<Float64Type>().value(row);
            match text.as_str() {
                "NaN" => value.is_nan(),
                "Infinity" => value == f64::INFINITY,
                "-Infinity" => value == f64::NEG_INFINITY,
                _ => false,
            }
        }
        (Json::Text(text), DataType::Utf8) => column.as_string::<i32>().value(row) == text,
        (Json::List(items), DataType::List(_)) => {
            let list = column.as_list::<i32>().value(row);
            list.len() == items.len() && items.iter().enumerate().all(|(at, item)| holds(item, &list, at))
        }
        (Json::Object(fields), DataType::Struct(_)) => {
            let columns = column.as_struct();
            let once = |key: &str| fields.iter().filter(|(other, _)| other == key).count() == 1;
            fields.iter().all(|(key, item)| match columns.column_by_name(key) {
                Some(child) => once(key) && holds(item, child, row),
                None => matches!(item, Json::Null),
            })
        }
        _ => false,
    }
}

/// A column's value as JSON, without the fields that are null.
pub fn value(column: Option<&dyn Array>, row: usize) -> String {
    let Some(column) = column.filter(|column| column.is_valid(row)) else {
        return "null".to_owned();
    };
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => match column.as_primitive::<Float64Type>().value(row) {
            value if value.is_finite() => format!("{value:?}"),
            value => format!("\"{value}\""),
        },
        DataType::Utf8 => serde_json::to_string(column.as_string::<i32>().value(row)).expect("JSON"),
        DataType::List(_) => {
            let list = column.as_list::<i32>().value(row);
            let items: Vec<String> = (0..list.len()).map(|at| value(Some(&list), at)).collect();
            format!("[{}]", items.join(","))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let items: Vec<String> =
                (0..entries.len()).map(|at| format!("{}:{}", value(Some(keys), at), value(Some(values), at))).collect();
            format!("{{{}}}", items.join(","))
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let present = fields.iter().zip(columns).filter(|(_, child)| child.is_valid(row));
            let items: Vec<String> = present
                .map(|(field, child)| {
                    format!("{}:{}", serde_json::to_string(field.name()).expect("JSON"), value(Some(child), row))
                })
                .collect();
            format!("{{{}}}", items.join(","))
        }
        other => panic!("no such column: {other}"),
    }
}

use super::*;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

const LIMIT: usize = 1 << 20;

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    assert_eq!(to_json(&mut out, value, LIMIT).unwrap(), Encoded::Whole);
    String::from_utf8(out).unwrap()
}

#[derive(Serialize)]
enum Kind {
    Unit,
    Newtype(u8),
    Tuple(u8, f64),
    Struct { a: Option<i32>, b: () },
}

#[derive(Serialize)]
struct Everything<'a> {
    bytes: &'a [u8],
    map: BTreeMap<i32, char>,
    kinds: [Kind; 4],
    tuple: (i128, u128, f32),
    text: &'a str,
    nested: Vec<Vec<bool>>,
}

fn everything() -> Everything<'static> {
    Everything {
        bytes: &[1, 255],
        map: BTreeMap::from([(-5, 'x'), (7, '"')]),
        kinds: [Kind::Unit, Kind::Newtype(3), Kind::Tuple(1, 0.1), Kind::Struct { a: None, b: () }],
        tuple: (i128::MIN, u128::MAX, 0.1),
        text: "line\nbreak \u{1F600}",
        nested: vec![vec![], vec![true, false]],
    }
}

#[test]
fn writes_what_serde_json_writes() {
    assert_eq!(json(&everything()), serde_json::to_string(&everything()).unwrap());
    assert_eq!(json(&format_args!("{}-{}", 1, "\"")), "\"1-\\\"\"");
}

#[test]
fn keeps_what_serde_json_makes_null() {
    assert_eq!(json(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]), r#"["NaN","Infinity","-Infinity",-0.0]"#);
    assert_eq!(json(&f32::NAN), r#""NaN""#);
}

#[test]
fn raw_json_is_kept_to_the_token() {
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str("{ \"a\" : 1e400,\n \"b\":0.10 }").unwrap();
    assert_eq!(json(&raw), r#"{"a":1e400,"b":0.10}"#);
}

#[test]
fn past_the_limit_stands_the_digest_of_the_whole() {
    let long = "x".repeat(300_000);
    let whole = serde_json::to_string(&[&long, &long]).unwrap();
    let mut out = b"before".to_vec();
    assert_eq!(to_json(&mut out, &[&long, &long], 1_000).unwrap(), Encoded::Digest);
    let sha: String = Sha256::digest(whole.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(String::from_utf8(out).unwrap(), format!("before{{\"sha256\":\"{sha}\",\"bytes\":{}}}", whole.len()));
}

#[test]
fn memory_stays_bounded_while_a_large_value_is_hashed() {
    let mut out = Vec::new();
    to_json(&mut out, &vec![0.123_456_789; 2_000_000], 10_000).unwrap();
    assert!(out.capacity() < 300_000, "{}", out.capacity());
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| (1..depth).fold(Value::Array(vec![]), |inner, _| Value::Array(vec![inner]));
    let mut out = Vec::new();
    assert_eq!(to_json(&mut out, &nested(64), LIMIT).unwrap(), Encoded::Whole);
    out.clear();
    assert_eq!(to_json(&mut out, &nested(65), LIMIT).unwrap(), Encoded::Digest);
    let sha: String = Sha256::digest(nested(65).to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(String::from_utf8(out.clone()).unwrap().contains(&sha));
    out.clear();
    assert_eq!(to_json(&mut out, &nested(600), LIMIT).unwrap(), Encoded::Digest);
    assert_eq!(out, b"{\"sha256\":null,\"bytes\":null}");
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&("[".repeat(10_000) + &"]".repeat(10_000))).unwrap();
    assert_eq!(to_json(&mut Vec::new(), &raw, LIMIT).unwrap(), Encoded::Digest);
}

#[test]
fn a_key_that_json_cannot_have_is_an_error_that_leaves_nothing() {
    let mut out = b"before".to_vec();
    let error = to_json(&mut out, &BTreeMap::from([((1, 2), 3)]), LIMIT).unwrap_err();
    assert!(error.to_string().contains("key"), "{error}");
    assert_eq!(out, b"before");
}

proptest! {
    #[test]
    fn every_finite_float_comes_back_exact(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
        prop_assert_eq!(json(&value).parse::<f64>().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn any_json_value_is_written_as_serde_json_does(value in arbitrary_json()) {
        prop_assert_eq!(json(&value), value.to_string());
    }
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((".*", inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

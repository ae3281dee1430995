//! Lines to columns: nothing is lost, nothing is invented, and what is no line leaves no trace.

#[path = "columns/json.rs"]
mod json;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use json::{Json, held, side, value};
use predlog::format::decode::{Fit, LineError, RowDecoder};
use predlog::format::infer::Inference;
use predlog::format::schema::{ColumnType, Field, MAX_LEAVES, ModelSchema, Side};
use proptest::prelude::*;

const HEAD: &str = r#"{"timestamp":"2026-11-23T03:34:18.123456Z","model_name":"wine","id":"a""#;

fn line(inputs: &str) -> String {
    format!("{HEAD},\"inputs\":{inputs},\"outputs\":{{\"score\":0.5}}}}")
}

fn schema_of(lines: &[String]) -> ModelSchema {
    let mut inference = Inference::new();
    for line in lines {
        inference.push_line(line.as_bytes()).expect("a line");
    }
    inference.schema()
}

fn inputs(fields: &[(&str, ColumnType)]) -> ModelSchema {
    let fields = fields.iter().map(|(name, kind)| Field { name: (*name).to_owned(), kind: kind.clone() }).collect();
    ModelSchema { inputs: Side { bare: false, fields }, outputs: Side::default() }
}

fn decode(schema: &ModelSchema, lines: &[String]) -> (RecordBatch, Vec<Fit>) {
    let mut decoder = RowDecoder::new(schema);
    let fits = lines.iter().map(|line| decoder.push_line(line.as_bytes()).expect("a row")).collect();
    (decoder.finish().expect("columns"), fits)
}

fn text<'b>(batch: &'b RecordBatch, column: &str, row: usize) -> Option<&'b str> {
    let array = batch.column_by_name(column).expect("the column").as_string::<i32>();
    array.is_valid(row).then(|| array.value(row))
}

/// Each row is held exactly by its column, or whole in the JSON column; never neither, never both.
fn check_lossless(schema: &ModelSchema, rows: &[(Json, String)]) -> Result<(), TestCaseError> {
    let lines: Vec<String> = rows.iter().map(|(_, text)| line(text)).collect();
    let (batch, fits) = decode(schema, &lines);
    prop_assert_eq!(batch.num_rows(), rows.len());
    for (row, (json, raw)) in rows.iter().enumerate() {
        let exact = held(json, side(&batch, "inputs"), row, schema.inputs.bare);
        let kept = text(&batch, "inputs_json", row);
        prop_assert_eq!(kept, (!exact).then_some(raw.as_str()), "row {} of {:?}", row, schema);
        prop_assert_eq!(fits[row] == Fit::Exact, exact);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_in_any_shape(rows in prop::collection::vec(json::any_value(), 1..12), style in any::<u64>()) {
        let rows: Vec<(Json, String)> = rows.into_iter().enumerate().map(|(at, json)| {
            let text = json.render(style.wrapping_mul(at as u64 + 1));
            (json, text)
        }).collect();
        let lines: Vec<String> = rows.iter().map(|(_, text)| line(text)).collect();
        check_lossless(&schema_of(&lines), &rows)?;
        // By a schema of some of the rows only, the others are new fields and misfits; merging the rest settles it.
        let mut schema = schema_of(&lines[..1]);
        check_lossless(&schema, &rows)?;
        schema.merge(&schema_of(&lines));
        check_lossless(&schema, &rows)?;
        let settled = schema.clone();
        prop_assert!(!schema.merge(&schema_of(&lines)), "it grows no further by what it has seen: {:?}", settled);
        prop_assert_eq!(schema, settled);
    }

    #[test]
    fn what_is_accepted_is_what_serde_json_accepts(json in json::any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = line(&json.render(7)).into_bytes();
        // Past the timestamp, so that only the JSON is in question.
        let at = HEAD.len() + at.index(bytes.len() - HEAD.len());
        bytes[at] = byte;
        let valid = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() && std::str::from_utf8(&bytes).is_ok();
        let mut decoder = RowDecoder::new(&schema_of(&[line(&json.render(7))]));
        prop_assert_eq!(decoder.push_line(&bytes).is_ok(), valid, "{}", String::from_utf8_lossy(&bytes));
        let mut inference = Inference::new();
        prop_assert_eq!(inference.push_line(&bytes).is_ok(), valid);
    }

    #[test]
    fn a_truncated_line_leaves_no_trace(json in json::any_value(), others in prop::collection::vec(json::any_value(), 0..2)) {
        let whole = line(&json.render(3));
        // Behind rows that have other columns than this one, or more of them.
        let rows: Vec<String> = others.iter().map(|json| line(&json.render(2))).chain([whole.clone()]).collect();
        let schema = schema_of(&rows);
        let mut decoder = RowDecoder::new(&schema);
        for row in &rows {
            for end in 0..whole.len() {
                prop_assert!(decoder.push_line(&whole.as_bytes()[..end]).is_err());
            }
            decoder.push_line(row.as_bytes()).expect("a row");
        }
        prop_assert_eq!(decoder.finish().expect("columns"), decode(&schema, &rows).0);
    }

    /// Values are read in another way where they are too near the line's end to look ahead, and behind white space.
    #[test]
    fn a_value_is_read_alike_wherever_it_is(rows in prop::collection::vec(json::any_value(), 1..8), pad in 0..40usize) {
        let texts: Vec<String> = rows.iter().map(|json| json.render(0)).collect();
        let schema = schema_of(&texts.iter().map(|text| line(text)).collect::<Vec<_>>());
        let columns = |lines: Vec<String>| {
            let (batch, fits) = decode(&schema, &lines);
            let columns: Vec<_> = ["inputs", "inputs_json"].iter().map(|name| batch.column_by_name(name).cloned()).collect();
            (columns, fits)
        };
        let at_the_end = columns(texts.iter().map(|text| format!("{HEAD},\"outputs\":{{\"score\":0.5}},\"inputs\":{text}}}")).collect());
        let spaced = columns(texts.iter().map(|text| format!("{HEAD}, \"inputs\": {text}, \"outputs\": {{\"score\": 0.5}}}}")).collect());
        let within = columns(texts.iter().map(|text| {
            format!("{HEAD},\"inputs\":{text},\"outputs\":{{\"score\":0.5}},\"error\":\"{}\"}}", "x".repeat(pad))
        }).collect());
        prop_assert_eq!(&at_the_end, &within);
        prop_assert_eq!(&spaced, &within);
    }

    /// Numbers and strings of every length around the steps in which they are read.
    #[test]
    fn values_of_any_length_are_what_serde_json_reads(
        numbers in prop::collection::vec("-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?([eE]-?[0-9]{1,2})?", 1..6),
        texts in prop::collection::vec("[a-zé\\\\\"\u{1}😀]{0,2}[a-z]{0,70}[é\n\"]{0,2}[a-z]{0,20}", 1..6),
    ) {
        let schema = inputs(&[("d", ColumnType::Double), ("i", ColumnType::Int64), ("s", ColumnType::String)]);
        let lines: Vec<String> = numbers.iter().zip(texts.iter().cycle()).map(|(number, text)| {
            line(&format!("{{\"d\":{number},\"i\":{number},\"s\":{}}}", serde_json::to_string(text).expect("JSON")))
        }).collect();
        let (batch, _) = decode(&schema, &lines);
        let columns = side(&batch, "inputs").expect("inputs").as_struct().clone();
        for (row, (number, text)) in numbers.iter().zip(texts.iter().cycle()).enumerate() {
            let double: f64 = number.parse().expect("a number");
            let doubles = columns.column(0).as_primitive::<arrow_array::types::Float64Type>();
            prop_assert_eq!(doubles.is_valid(row), double.is_finite());
            prop_assert!(!double.is_finite() || doubles.value(row).to_bits() == double.to_bits(), "{}", number);
            let ints = columns.column(1).as_primitive::<arrow_array::types::Int64Type>();
            let int = number.parse::<i64>().ok().filter(|_| number != "-0");
            prop_assert_eq!(ints.is_valid(row).then(|| ints.value(row)), int, "{}", number);
            prop_assert_eq!(columns.column(2).as_string::<i32>().value(row), text);
        }
    }

    #[test]
    fn typed_rows_decode_as_arrow_json_does(
        rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<f64>>(), any::<Option<bool>>(), any::<Option<String>>(),
            prop::option::of(prop::collection::vec(any::<Option<i32>>(), 0..4))), 1..20)
    ) {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        let lines: Vec<String> = rows.iter().map(|(int, double, flag, text, list)| {
            line(&serde_json::json!({"int": int, "sub": {"double": finite(*double), "flag": flag}, "text": text, "list": list}).to_string())
        }).collect();
        let sub = vec![Field { name: "double".into(), kind: ColumnType::Double }, Field { name: "flag".into(), kind: ColumnType::Bool }];
        let schema = inputs(&[
            ("int", ColumnType::Int64),
            ("sub", ColumnType::Struct(sub)),
            ("text", ColumnType::String),
            ("list", ColumnType::List(Box::new(ColumnType::Int64))),
        ]);
        let (ours, _) = decode(&schema, &lines);
        let mut theirs = arrow_json::ReaderBuilder::new(ours.schema()).build_decoder().expect("a decoder");
        theirs.decode(lines.join("\n").as_bytes()).expect("lines");
        let theirs = theirs.flush().expect("rows").expect("a batch");
        for column in ["id", "timestamp", "inputs", "inputs_json"] {
            if column != "inputs_json" || rows.iter().all(|(int, ..)| int.is_none_or(|int| int.unsigned_abs() < 1 << 53)) {
                prop_assert_eq!(ours.column_by_name(column), theirs.column_by_name(column));
            }
        }
    }
}

#[test]
fn numbers_fit_only_where_no_bit_is_lost() {
    let schema = inputs(&[("i", ColumnType::Int64), ("d", ColumnType::Double), ("s", ColumnType::String)]);
    for (inputs, exact, want) in [
        (r#"{"i":9223372036854775807}"#, true, r#"{"i":9223372036854775807}"#),
        (r#"{"i":18446744073709551615}"#, false, r#"{}"#),
        (r#"{"i":1.0}"#, false, r#"{}"#),
        (r#"{"i":-0}"#, false, r#"{}"#),
        (r#"{"d":-0}"#, true, r#"{"d":-0.0}"#),
        (r#"{"d":0.1}"#, true, r#"{"d":0.1}"#),
        (r#"{"d":1e400}"#, false, r#"{}"#),
        (r#"{"d":9007199254740993}"#, false, r#"{"d":9007199254740992.0}"#),
        (r#"{"d":"Infinity"}"#, true, r#"{"d":"inf"}"#),
        (r#"{"d":"-Infinity"}"#, true, r#"{"d":"-inf"}"#),
        (r#"{"d":"NaN"}"#, true, r#"{"d":"NaN"}"#),
        (r#"{"d":"nan"}"#, false, r#"{}"#),
        (r#"{"s":"NaN"}"#, true, r#"{"s":"NaN"}"#),
        (r#"{"i":1,"i":2}"#, false, r#"{"i":2}"#),
        (r#"{"s":"\ud83d\ude00\u0041"}"#, true, r#"{"s":"😀A"}"#),
        (r#"{"s":"\ud83d"}"#, false, r#"{}"#),
        (r#"{"s":"\ude00\ud83d"}"#, false, r#"{}"#),
        (r#"{"\u0069":5}"#, true, r#"{"i":5}"#),
        (r#"{"\ud800":5,"i":5}"#, false, r#"{"i":5}"#),
        (r#"{"i":{"a":[1,{}]},"d":[1],"s":7}"#, false, r#"{}"#),
        (r#"{"other":null}"#, true, r#"{}"#),
        (r#"{ }"#, true, r#"{}"#),
        ("null", true, "null"),
        ("[1]", false, "null"),
        ("7", false, "null"),
    ] {
        let (batch, fits) = decode(&schema, &[line(inputs)]);
        assert_eq!(value(side(&batch, "inputs"), 0), want, "{inputs}");
        assert_eq!(text(&batch, "inputs_json", 0), (!exact).then_some(inputs), "{inputs}");
        assert_eq!(fits[0] == Fit::Exact, exact && text(&batch, "outputs_json", 0).is_none(), "{inputs}");
    }
}

#[test]
fn a_line_may_be_odd_around_its_values() {
    let odd = r#" { "seq" : 3 , "writer":"w","id":17,"status_code":"200","row_index":1.5,"latency_ms":"NaN","sample_weight":"x",
        "metadata":{"a":"1","b":2,"a":"3","c":null,"d":{"x":[]}},"error":"\ud800","unknown":{"deep":[1]},
        "outputs":[1,2],"timestamp":"2026-11-23T04:34:18.5+01:00","model_version":null,"timestamp":"no time"} "#;
    let odd = odd.replace('\n', " ");
    let (batch, _) = decode(&ModelSchema::default(), &[odd]);
    let get = |column: &str| value(batch.column_by_name(column).map(|array| array.as_ref()), 0);
    let found: Vec<String> = [
        "id",
        "seq",
        "writer",
        "status_code",
        "row_index",
        "latency_ms",
        "sample_weight",
        "error",
        "outputs_json",
        "model_version",
    ]
    .map(get)
    .into();
    assert_eq!(found, [r#""17""#, "3", r#""w""#, "null", "null", r#""NaN""#, "null", "\"\u{fffd}\"", r#""[1,2]""#, "null"]);
    assert_eq!(get("metadata"), r#"{"a":"3","b":"2","c":null,"d":"{\"x\":[]}"}"#);
    let time = batch
        .column_by_name("timestamp")
        .expect("timestamp")
        .as_primitive::<arrow_array::types::TimestampMicrosecondType>()
        .value(0);
    assert_eq!(time, 1_795_404_858_500_000);
}

#[test]
fn lines_that_are_no_rows_say_why() {
    let mut decoder = RowDecoder::new(&ModelSchema::default());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decoder.push_line(b"\xff"), Err(LineError::InvalidUtf8 { valid_up_to: 0 }));
    assert_eq!(decoder.push_line(b"[1]"), Err(LineError::NotAnObject));
    assert_eq!(decoder.push_line(deep.as_bytes()), Err(LineError::NotAnObject));
    assert_eq!(decoder.push_line(b"{}"), Err(LineError::NoTimestamp));
    assert_eq!(decoder.push_line(br#"{"timestamp":5}"#), Err(LineError::BadTimestamp { value: "5".into() }));
    assert_eq!(decoder.push_line(b"{,}"), Err(LineError::Syntax { offset: 1, expected: "a key in quotes" }));
    assert!(matches!(decoder.push_line(b""), Err(LineError::Syntax { .. })));
    assert!(matches!(decoder.push_line(&deep.as_bytes()[..100_000]), Err(LineError::Syntax { .. })));
    assert!(matches!(decoder.push_line(b"{\"id\":\"a\nb\"}"), Err(LineError::Syntax { .. })));
    assert_eq!(decoder.rows(), 0);
    // Deep inputs are a row: whole in the JSON column.
    assert_eq!(decoder.push_line(line(&deep).as_bytes()), Ok(Fit::NewField));
    let (batch, fits) = decode(&inputs(&[("a", ColumnType::Int64)]), &[line(&deep)]);
    assert_eq!(fits, [Fit::NewField], "outputs are new");
    assert_eq!(text(&batch, "inputs_json", 0), Some(deep.as_str()));
}

#[test]
fn types_are_inferred_by_majority_and_stay() {
    let infer = |values: &[&str]| {
        let lines: Vec<String> = values.iter().map(|value| line(&format!("{{\"f\":{value}}}"))).collect();
        schema_of(&lines).inputs.fields.first().map(|field| field.kind.clone())
    };
    let list = |kind| Some(ColumnType::List(Box::new(kind)));
    for (values, want) in [
        (&["1", "2"][..], Some(ColumnType::Int64)),
        (&["1", "2.5", "null"], Some(ColumnType::Double)),
        (&["1", "-0"], Some(ColumnType::Double)),
        (&["\"NaN\"", "3"], Some(ColumnType::Double)),
        (&["\"NaN\""], Some(ColumnType::Double)),
        (&["\"NaN\"", "\"x\""], Some(ColumnType::String)),
        (&["\"x\"", "1", "2"], Some(ColumnType::Int64)),
        (&["\"x\"", "1"], Some(ColumnType::String)),
        (&["true", "1", "true"], Some(ColumnType::Bool)),
        (&["[1]", "[null,2.5]"], list(ColumnType::Double)),
        (&["[]", "{}", "null", "[[]]"], None),
        (&["[]", "[]", "5"], Some(ColumnType::Int64)),
    ] {
        assert_eq!(infer(values), want, "{values:?}");
    }
    let mut schema = inputs(&[("f", ColumnType::Int64)]);
    assert!(!schema.merge(&inputs(&[("f", ColumnType::String), ("F", ColumnType::Bool), ("", ColumnType::Bool)])));
    assert!(schema.merge(&inputs(&[("g", ColumnType::String), ("f", ColumnType::String)])));
    assert_eq!(schema, inputs(&[("f", ColumnType::Int64), ("g", ColumnType::String)]));
    let text = serde_json::to_string(&schema).expect("JSON");
    assert_eq!(
        text,
        r#"{"inputs":{"bare":false,"fields":[{"name":"f","type":"int64"},{"name":"g","type":"string"}]},"outputs":{"bare":false,"fields":[]}}"#
    );
    assert_eq!(serde_json::from_str::<ModelSchema>(&text).expect("a schema"), schema);
}

#[test]
fn a_schema_is_bounded_in_depth_and_width() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let (fits, misfits) = (line(&nested(8)), line(&nested(9)));
    assert_eq!(schema_of(std::slice::from_ref(&fits)).inputs.leaves(), 1);
    assert_eq!(schema_of(std::slice::from_ref(&misfits)).inputs.leaves(), 0);
    assert_eq!(decode(&schema_of(std::slice::from_ref(&misfits)), &[misfits]).1, [Fit::Raw], "it can never have a column");
    let wide = |from: usize| {
        let fields: Vec<String> = (from..from + 1_500).map(|at| format!("\"f{at}\":{at}")).collect();
        line(&format!("{{{}}}", fields.join(",")))
    };
    let lines = [wide(0), wide(1_500), wide(3_000)];
    let schema = schema_of(&lines);
    assert_eq!(schema.leaves(), MAX_LEAVES);
    let (batch, fits) = decode(&schema, &lines);
    assert_eq!(fits, [Fit::Exact, Fit::Raw, Fit::Raw]);
    assert!(text(&batch, "inputs_json", 2).is_some_and(|raw| raw.contains("f4499")));
}

#[test]
fn bare_values_and_objects_with_a_key_value_are_told_apart() {
    let lines = ["[1,2]", r#"{"value":[3],"x":1}"#, "null", "{}"].map(line);
    let mut schema = schema_of(&lines[..1]);
    assert!(schema.inputs.bare);
    let (batch, fits) = decode(&schema, &lines);
    let rows: Vec<String> = (0..4).map(|row| value(side(&batch, "inputs"), row)).collect();
    assert_eq!(rows, [r#"{"value":[1,2]}"#, "{}", "null", "{}"]);
    assert_eq!(fits, [Fit::Exact, Fit::NewField, Fit::Exact, Fit::Exact]);
    schema.merge(&schema_of(&lines[1..2]));
    assert_eq!(schema.inputs.fields.len(), 2);
    assert_eq!(decode(&schema, &lines).1[1], Fit::Raw);
    let objects = schema_of(&lines[1..2]);
    assert_eq!(decode(&objects, &lines).1, [Fit::Raw, Fit::Exact, Fit::Exact, Fit::Exact]);
}

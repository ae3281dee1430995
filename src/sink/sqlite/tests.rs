use super::line::Parts;
use super::*;
use crate::batch::{Chunk, Origin};
use crate::clock::Timestamp;
use crate::record::{Prediction, Writer, encode};
use proptest::prelude::*;
use rusqlite::params;
use serde_json::{Value, json};

fn settings(dir: &std::path::Path) -> SqliteSettings {
    SqliteSettings { dir: dir.to_owned(), ..SqliteSettings::default() }
}

fn writer() -> Writer {
    Writer::new(uuid::Uuid::from_u128(5), 3)
}

fn write(sink: &mut SqliteSink, lines: &[Vec<u8>]) -> Result<(), SinkError> {
    let text = lines.concat();
    let chunk = Chunk::from_lines(writer(), lines.len() as u64, 0, lines.len() as u64 - 1, &text);
    sink.write(&Batch { id: 1, origin: Origin::Live, chunks: vec![chunk] })?;
    assert_eq!(sink.commit()?, Some(1));
    Ok(())
}

/// Stores the lines (of one model) and gives what an upload would get.
fn through(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::open(settings(dir.path())).unwrap();
    write(&mut sink, lines).unwrap();
    let mut export = SqliteExport::open(settings(dir.path())).unwrap();
    let plan = export.plan(1_000, Timestamp::from_micros(0)).unwrap().unwrap();
    let mut back = Vec::new();
    for model in &plan.models {
        export.lines(&plan, model, &mut |line| back.push(line.to_vec())).unwrap();
    }
    back
}

fn line(prediction: &Prediction<'_, Value, Value>, at: i64, seq: u64) -> Vec<u8> {
    let mut line = Vec::new();
    encode::encode(&mut line, prediction, Timestamp::from_micros(at), 300).unwrap();
    line.extend_from_slice(format!(",\"writer\":\"{}\",\"seq\":{seq}}}\n", writer()).as_bytes());
    line
}

fn raw(fields: &str, seq: u64) -> Vec<u8> {
    format!(
        "{{\"timestamp\":\"2026-11-23T03:34:18.12345{seq}Z\",\"model_name\":\"m\",{fields}\"writer\":\"{}\",\"seq\":{seq}}}\n",
        writer()
    )
    .into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn lines_come_back_to_the_byte(
        model in "[\\x00-\\x7f\u{80}-\u{10ffff}]{1,40}",
        texts in proptest::collection::vec(proptest::option::of("[\\x00-\\x30\u{80}-\u{10ffff}\"\\\\]{1,30}"), 5),
        numbers in (any::<Option<u64>>(), any::<Option<u16>>(), any::<Option<f64>>(), any::<Option<f64>>()),
        metadata in proptest::collection::vec((".{0,9}", ".{0,99}"), 0..4),
        at in -62_135_596_800_000_000i64..253_402_300_799_999_999,
        scalar in any::<bool>(),
    ) {
        let inputs = if scalar { json!(model) } else { json!({"a": {"b": [1.5, null]}, &model: "x"}) };
        let outputs = json!({"text": texts});
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let long = "e".repeat(400);
        let mut prediction = Prediction::new(&model, "", &inputs, &outputs).metadata(&metadata);
        prediction.id = texts[0].as_deref();
        prediction.model_version = texts[1].as_deref();
        prediction.request_id = texts[2].as_deref();
        prediction.traceparent = texts[3].as_deref();
        // An error that is too long becomes an object, its digest.
        prediction.error = if scalar { Some(&long) } else { texts[4].as_deref() };
        (prediction.row_index, prediction.status_code, prediction.latency_ms, prediction.sample_weight) = numbers;
        let lines = [line(&prediction, at, 0), line(&prediction, at + 1, 1)];
        prop_assert_eq!(through(&lines), lines);
    }
}

#[test]
fn what_columns_cannot_hold_comes_back_as_well() {
    let lines = [
        raw(r#""inputs":{},"outputs":{},"latency_ms":"NaN","sample_weight":"-Infinity","#, 0),
        raw(r#""inputs":{},"outputs":{},"row_index":18446744073709551615,"latency_ms":1.50,"#, 1),
        raw(r#""id":"half \ud83d a pair, and \u0041","inputs":"\ud83d","outputs":null,"error":{"sha256":"x","bytes":9},"#, 2),
        raw(r#""inputs":{},"outputs":1e400,"later_version":{"a":[1]},"#, 3),
        raw("", 4),
        b"no line at all\n".to_vec(),
    ];
    let mut back = through(&lines);
    back.sort_by_key(|line| lines.iter().position(|known| known == line));
    assert_eq!(back, lines);
}

#[test]
fn lines_are_sorted_by_timestamp() {
    let at = |at: i64, seq| line(&Prediction::new("m", "1", &json!({}), &json!({})).id("i"), at, seq);
    let back = through(&[at(30, 0), at(10, 1), at(20, 2), at(10, 3)]);
    assert_eq!(back, [at(10, 1), at(10, 3), at(20, 2), at(30, 0)]);
}

#[test]
fn columns_hold_what_a_person_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::open(settings(dir.path())).unwrap();
    let (inputs, outputs) = (json!({"x": 1}), json!(0.5));
    let full = Prediction::new("m \"\u{1F377}\"\0", "v", &inputs, &outputs)
        .id("i\n")
        .row_index(3)
        .status_code(200)
        .latency_ms(f64::NAN)
        .sample_weight(f64::INFINITY)
        .metadata(&[("k", "v")]);
    write(&mut sink, &[line(&full, 1_500_000, 0)]).unwrap();
    let conn = &sink.db.as_ref().unwrap().conn;
    let found: i64 = conn
        .query_row(
            "SELECT count(*) FROM predictions WHERE timestamp = 1500000 AND model_name = ?1 AND id = ?2 AND model_version = 'v' AND \
             inputs = '{\"x\":1}' AND outputs = '0.5' AND request_id IS NULL AND row_index = 3 AND status_code = 200 AND error IS NULL AND \
             latency_ms IS NULL AND sample_weight = 9e999 AND metadata ->> '$.k' = 'v' AND writer = ?3 AND seq = 0 AND \
             extra = '{\"latency_ms\":\"NaN\"}'",
            params!["m \"\u{1F377}\"\0", "i\n", writer().to_string()],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(found, 1);
}

#[test]
fn a_full_database_is_no_space_and_owns_nothing_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::open(settings(dir.path())).unwrap();
    let (inputs, outputs) = (json!({"x": "y".repeat(200)}), json!({}));
    let lines: Vec<Vec<u8>> = (0..2_000).map(|seq| line(&Prediction::new("m", "1", &inputs, &outputs), 0, seq)).collect();
    let limit = |sink: &SqliteSink, pages: i64| {
        let conn = &sink.db.as_ref().unwrap().conn;
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    limit(&sink, 40);
    let error = write(&mut sink, &lines).unwrap_err();
    assert_eq!(error.kind, SinkErrorKind::NoSpace, "{error}");
    assert!(error.message.contains("predictions.db"), "{error}");
    assert_eq!(sink.commit().unwrap(), None);
    limit(&sink, 1 << 30);
    write(&mut sink, &lines).unwrap();
    write(&mut sink, &lines).unwrap();
    let conn = &sink.db.as_ref().unwrap().conn;
    let rows: i64 = conn.query_row("SELECT count(*) FROM predictions", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2_000);
}

#[test]
fn a_torn_line_never_panics() {
    let whole = line(
        &Prediction::new("m", "1", &json!({"a": "\"", "b": [1]}), &json!("x")).metadata(&[("k", "v")]).latency_ms(1.0),
        7,
        0,
    );
    for end in 0..whole.len() {
        let mut models = Models::new(true);
        Parts::of(&whole[..end], &mut models);
    }
    assert!(Parts::of(&whole, &mut Models::new(true)).is_some());
}

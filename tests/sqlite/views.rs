//! The views by model.

use super::{AT, Lines, connect, line, now, open, store, writer};
use predlog::sink::Sink;
use rusqlite::types::Value::{self, Integer, Null, Real, Text};
use std::path::Path;
use std::process::Command;

fn lines(first: u64, lines: Vec<String>) -> Lines {
    Lines { writer: writer(1), first, last: first + lines.len() as u64 - 1, text: lines.concat() }
}

const INPUTS: &str = r#"{"alcohol":9.5,"a\"b":1,"c.d":2,"[0]":3,"$":4,"caf\u00e9":5,"café":6,"":7,"n\u0000l":8,"id":9,"ID":10,"score":11,"'; DROP TABLE predictions; --":12,"Alcohol":13,"nest":{"x":[1]},"big":18446744073709551615,"nan":"NaN","yes":true,"b\\s":14}"#;
const OUTPUTS: &str = r#"{"score":0.25,"time":"later"}"#;

#[test]
fn show_features_whatever_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let models = ["wine", "Wine", "model_wine_2", "a\"b'c", "n\0l", "../../etc", "predictions", "\u{1F377}"];
    let first = models.iter().enumerate().map(|(seq, model)| line(writer(1), seq as u64, AT - 1, model, INPUTS, OUTPUTS));
    store(&mut sink, 1, &lines(0, first.collect()));
    // What is not an object, a key that is new, and a view that somebody else made under the name of one to come.
    let conn = connect(dir.path());
    conn.execute_batch("CREATE VIEW model_other AS SELECT 1").unwrap();
    let more = vec![
        line(writer(1), 8, AT, "wine", "[1,2]", "0.5"),
        line(writer(1), 9, AT, "other", "{\"x\":1}", "{}"),
        line(writer(1), 10, AT, "wine", "{\"late\":1}", "{}"),
    ];
    store(&mut sink, 2, &lines(8, more));

    let mut select = conn.prepare("SELECT model_name, view_name FROM models").unwrap();
    let views = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let views: Vec<(String, String)> = views.map(Result::unwrap).collect();
    assert_eq!(views.len(), 9);
    for (model, view) in &views {
        let sql = format!("SELECT count(*) FROM \"{}\"", view.replace('"', "\"\""));
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, if model == "wine" { 3 } else { 1 }, "{model:?} {view:?}");
    }
    let column = |name: &str| -> Value {
        let sql = format!("SELECT \"{}\" FROM model_wine ORDER BY seq LIMIT 1", name.replace('"', "\"\""));
        conn.query_row(&sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let expected = [
        ("time", Text("2026-11-23T03:34:18.123455Z".into())),
        ("alcohol", Real(9.5)),
        ("inputs_Alcohol", Integer(13)),
        ("a\"b", Integer(1)),
        ("c.d", Integer(2)),
        ("[0]", Integer(3)),
        ("$", Integer(4)),
        ("café", Integer(5)),
        ("inputs_", Integer(7)),
        ("n\u{2400}l", Integer(8)),
        ("inputs_id", Integer(9)),
        ("inputs_ID_2", Integer(10)),
        ("score", Integer(11)),
        ("outputs_score", Real(0.25)),
        ("outputs_time", Text("later".into())),
        ("'; DROP TABLE predictions; --", Integer(12)),
        ("nest", Text("{\"x\":[1]}".into())),
        ("big", Real(18446744073709551615.0)),
        ("nan", Text("NaN".into())),
        ("yes", Integer(1)),
        ("b\\s", Integer(14)),
        ("late", Null),
        ("value", Null),
    ];
    for (name, expected) in expected {
        assert_eq!(column(name), expected, "{name}");
    }
    let whole = conn.query_row("SELECT value, outputs_value, alcohol FROM model_wine WHERE seq = 8", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, f64>(1)?, row.get::<_, Option<f64>>(2)?))
    });
    assert_eq!(whole.unwrap(), ("[1,2]".into(), 0.5, None));
    let late: i64 = conn.query_row("SELECT late FROM model_wine WHERE seq = 10", [], |row| row.get(0)).unwrap();
    assert_eq!(late, 1);
    an_older_reader_agrees(&dir.path().join("predictions.db"));
}

/// Where a sqlite3 program is installed, which may be years older than the library in here, it reads what we wrote.
fn an_older_reader_agrees(path: &Path) {
    let columns = ["\"a\"\"b\"", "\"c.d\"", "café", "\"inputs_\"", "\"b\\s\"", "outputs_score", "time"].join(" || '|' || ");
    let sql = format!("SELECT {columns} FROM model_wine ORDER BY seq LIMIT 1");
    let Ok(output) = Command::new("sqlite3").arg(path).arg(sql).output() else { return };
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out.trim(), "1|2|5|7|14|0.25|2026-11-23T03:34:18.123455Z", "{error}");
}

#[test]
fn a_null_side_has_no_column() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let actuals = |seq, outputs| line(writer(1), seq, AT, "wine.actuals", "null", outputs);
    store(&mut sink, 1, &lines(0, vec![actuals(0, "{\"quality\":6}"), actuals(1, "6.5"), actuals(2, "null")]));
    let conn = connect(dir.path());
    let mut select = conn.prepare("SELECT quality, value FROM \"model_wine.actuals\" ORDER BY seq").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(Option<f64>, Option<f64>)> = rows.map(Result::unwrap).collect();
    assert_eq!(rows, [(Some(6.0), None), (None, Some(6.5)), (None, None)]);
    assert!(conn.prepare("SELECT outputs_value FROM \"model_wine.actuals\"").is_err());
}

#[test]
fn models_and_features_past_the_limits_are_stored_without_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let wide: Vec<String> = (0..2_500).map(|at| format!("\"f{at}\":{at}")).collect();
    let wide = format!("{{{}}}", wide.join(","));
    let mut many = vec![line(writer(1), 0, AT, "wide", &wide, &wide), line(writer(1), 1, AT, "wide", &wide, &wide)];
    many.extend((2..302).map(|seq| line(writer(1), seq, AT, &format!("m{seq}"), "{\"a\":1}", "{}")));
    store(&mut sink, 1, &lines(0, many));
    let conn = connect(dir.path());
    let views: i64 = conn.query_row("SELECT count(*) FROM sqlite_master WHERE type = 'view'", [], |row| row.get(0)).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM predictions", [], |row| row.get(0)).unwrap();
    assert_eq!((views, rows), (256, 302));
    let last: i64 = conn.query_row("SELECT f1899 FROM model_wide LIMIT 1", [], |row| row.get(0)).unwrap();
    assert_eq!(last, 1_899);
    // After a restart the limits are still known.
    sink.close(now()).unwrap();
    let mut sink = open(dir.path());
    store(&mut sink, 1, &lines(302, vec![line(writer(1), 302, AT, "one more", &wide, "{}")]));
    store(&mut sink, 2, &lines(303, vec![line(writer(1), 303, AT, "wide", "{\"new\":1}", "{}")]));
    assert!(conn.prepare("SELECT new FROM model_wide").is_err());
}

#[test]
fn half_a_surrogate_pair_spoils_no_other_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path());
    let inputs = [r#"{"s":"ok"}"#, r#"{"s":"a\ud800b"}"#, r#"{"s":"\uD83D\uDE00"}"#, "{\"s\":\"\u{fffd}\"}", r#"{"s":1.5}"#];
    let lined = inputs.iter().enumerate().map(|(seq, inputs)| line(writer(1), seq as u64, AT, "m", inputs, "{}"));
    store(&mut sink, 1, &lines(0, lined.collect()));
    let conn = connect(dir.path());
    let mut select = conn.prepare("SELECT s FROM model_m ORDER BY seq").unwrap();
    let shown: Vec<Value> = select.query_map([], |row| row.get(0)).unwrap().map(|row| row.expect("UTF-8")).collect();
    let text = |text: &str| Text(text.to_owned());
    assert_eq!(shown, [text("ok"), text(r#""a\ud800b""#), text("\u{1F600}"), text("\u{fffd}"), Real(1.5)]);
}

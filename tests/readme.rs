//! What README.md says is so. Its Rust code is a doc test.
#![cfg(feature = "cli")]

mod support;

use predlog::clock::Timestamp;
use predlog::{Actuals, Config, Logger, Prediction};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use support::readers::{output, python};
use support::web::Web;

const README: &str = include_str!("../README.md");
const MAKEFILE: &str = include_str!("../Makefile");

/// The code blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

fn log_wines(dir: &Path, store: &str) {
    let config = format!("[direct]\nstore = {store:?}\ndir = {:?}", dir.join("predlog-data"));
    // Another model comes first, and the feature that is read later than the others: each run has files of its own.
    for (model, inputs, quality) in [
        ("churn", json!({"age": 40}), 1.0),
        ("wine", json!({"ph": 3.51}), 4.7),
        ("wine", json!({"alcohol": 11.25, "ph": 3.51}), 5.625),
    ] {
        let (logger, guard) = Logger::open(&Config::from_toml(&config).unwrap()).unwrap();
        let outputs = json!({"quality": quality});
        assert!(matches!(logger.log(Prediction::new(model, "1", &inputs, &outputs)), predlog::Outcome::Accepted { .. }));
        let report = guard.shutdown(Duration::from_secs(20));
        assert_eq!(report.delivered, 1, "{report:?}");
    }
}

#[test]
fn the_sizing_page_has_what_its_script_computes() {
    let page = include_str!("../docs/sizing.md");
    let computed = output(python("docs/sizing.py"));
    assert!(page.contains(&computed), "write this into docs/sizing.md:\n{computed}");
    let mut other = python("docs/sizing.py");
    other.args(["--per-day", "5e8", "--record-bytes", "1000"]);
    assert!(output(other).contains("| 0.5 billion | 5,787 |"));
}

#[test]
fn its_targets_are_in_the_makefile() {
    for target in ["run", "test", "demo"] {
        assert!(README.contains(&format!("make {target}")) && MAKEFILE.contains(&format!("\n{target}: ")), "{target}");
    }
}

#[tokio::test]
async fn its_curl_is_answered_with_its_answer() {
    let body = README.split("curl -d '").nth(1).unwrap().split('\'').next().unwrap();
    let answer = Web::new().post("application/json", &[], body).await;
    assert_eq!((answer.status.as_u16(), answer.accepted()), (202, 1));
    assert_eq!(answer.body.as_object().unwrap().keys().collect::<Vec<_>>(), ["accepted", "ids", "rejected"]);
}

#[test]
fn its_configuration_is_one_and_its_keys_exist() {
    for block in blocks("toml") {
        Config::from_toml(block).unwrap_or_else(|error| panic!("{error} in\n{block}"));
    }
    let config = Config::from_toml(blocks("toml")[0]).unwrap();
    assert_eq!(config.upload.url.as_deref(), Some("s3://predictions/team"));
    let known = serde_json::to_value(Config::default()).unwrap();
    let sections = known.as_object().unwrap();
    let mut named = 0;
    for quoted in README.split('`').skip(1).step_by(2) {
        if let Some((section, key)) = quoted.split_once('.')
            && let Some(keys) = sections.get(section).and_then(serde_json::Value::as_object)
        {
            named += 1;
            let mut parts = key.split('.');
            let first = parts.next().and_then(|part| keys.get(part));
            assert!(parts.fold(first, |at, part| at?.get(part)).is_some(), "README.md names {quoted}, which is no key");
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn its_sql_reads_the_sqlite_store() {
    let dir = tempfile::tempdir().unwrap();
    log_wines(dir.path(), "sqlite");
    let db = rusqlite::Connection::open(dir.path().join("predlog-data/predictions.db")).unwrap();
    let printed = README.split("predictions.db '").nth(1).unwrap().split('\'').next().unwrap();
    for (query, rows) in [(printed, 3), (blocks("sql")[0], 2)] {
        let mut statement = db.prepare(query).unwrap();
        assert_eq!(statement.query_map([], |_| Ok(())).unwrap().count(), rows, "{query}");
    }
    let newest: (f64, f64) = db.query_row(blocks("sql")[0], [], |row| Ok((row.get("alcohol")?, row.get("quality")?))).unwrap();
    assert_eq!(newest, (11.25, 5.625));
}

#[tokio::test]
async fn its_actuals_join_with_their_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[direct]\ndir = {:?}", dir.path());
    let (logger, guard) = Logger::open(&Config::from_toml(&config).unwrap()).unwrap();
    let accepted = |outcome| assert!(matches!(outcome, predlog::Outcome::Accepted { .. }));
    let inputs = json!({"alcohol": 9.4});
    for (id, quality) in [("order-17", 5.2), ("order-18", 7.0)] {
        accepted(logger.log(Prediction::new("wine", "1", &inputs, &json!({"quality": quality})).id(id)));
    }
    let first = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    accepted(logger.actuals(Actuals::new("order-17", "wine", &json!({"quality": 4.5})).timestamp(first)));
    assert!(logger.flush(Duration::from_secs(20)));
    guard.shutdown(Duration::from_secs(20));

    // The second telling is the one of the curl example, as the server writes it.
    let web = Web::new();
    let body = README.split("curl -d '").nth(2).unwrap().split('\'').next().unwrap();
    assert_eq!(web.post("application/json", &[], body).await.accepted(), 1);
    let told = web.stored().remove(0);
    let (logger, guard) = Logger::open(&Config::from_toml(&config).unwrap()).unwrap();
    let (name, id) = (told["model_name"].as_str().unwrap(), told["id"].as_str().unwrap());
    accepted(logger.log(Prediction::new(name, "", &told["inputs"], &told["outputs"]).id(id)));
    guard.shutdown(Duration::from_secs(20));

    let db = rusqlite::Connection::open(dir.path().join("predictions.db")).unwrap();
    let mut statement = db.prepare(blocks("sql")[1]).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get("id")?, row.get("predicted")?, row.get("actual")?))).unwrap();
    let rows: Vec<(String, f64, f64)> = rows.map(Result::unwrap).collect();
    assert_eq!(rows, [("order-17".to_owned(), 5.2, 6.0)]);
}

#[test]
fn its_python_reads_the_parquet_store() {
    let dir = tempfile::tempdir().unwrap();
    log_wines(dir.path(), "parquet");
    // The servers among its examples are run by the binding's own tests.
    let scripts: Vec<_> = blocks("python").into_iter().filter(|script| script.contains("predlog-data/predictions")).collect();
    assert_eq!(scripts.len(), 3);
    for (at, script) in scripts.into_iter().enumerate() {
        let file = dir.path().join(format!("readme_{at}.py"));
        std::fs::write(&file, script).unwrap();
        let mut command = python(file.to_str().unwrap());
        command.current_dir(dir.path());
        let printed = output(command);
        for value in ["11.25", "5.625", "4.7"] {
            assert!(printed.contains(value), "{value}: {script}\n{printed}");
        }
    }
}

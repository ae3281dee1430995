//! `predlog migrate`.

use super::*;

pub(super) fn direct(dir: &Path, store: Store) -> Config {
    let mut config = Config::default();
    (config.direct.dir, config.direct.store) = (dir.to_owned(), store);
    config.kafka.fallback.dir = dir.to_owned();
    config
}

/// Logs so many predictions, and ends the logger; all of them are delivered.
pub(super) fn log(config: &Config, rows: u64) {
    let (logger, guard) = Logger::open(config).unwrap();
    for n in 0..rows {
        let model = if n % 3 == 0 { "beer" } else { "wine" };
        let outcome = logger.log_parts(model, "1", &json!({"n": n, "x": 0.1, "text": "\u{e9}\""}), &json!([0.5, 2]));
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let report = guard.shutdown(LONG);
    assert_eq!((report.delivered, report.on_disk), (rows, 0), "{report:?}");
}

#[test]
fn a_history_is_migrated_to_kafka_once() {
    for store in [Store::Sqlite, Store::Parquet] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let data = dir.path().join("data");
        let from = match store {
            Store::Sqlite => format!("sqlite:{}/predictions.db", data.display()),
            Store::Parquet => format!("parquet:{}", data.display()),
        };
        let toml = toml(&dir.path().join("fallback"), &topic);
        let migrate = || predlog(dir.path(), &toml, &["migrate", "--from", &from, "--to", "kafka"]);
        log(&direct(&data, store), 3_000);
        let (code, said, errors) = migrate();
        assert_eq!(code, Some(0), "{said}{errors}");
        let statements = lines(&format!("{topic}-ledger"), 1).len();
        assert_eq!(said, format!("sent={} refused=0 foreign=0\n", 3_000 + statements), "{errors}");
        let (code, said, errors) = migrate();
        assert_eq!((code, said.as_str()), (Some(0), "sent=0 refused=0 foreign=0\n"), "{errors}");
        log(&direct(&data, store), 10);
        assert_eq!(migrate().0, Some(0));
        let found = records(&topic, 3_010);
        let once: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!((found.len(), once.len()), (3_010, 3_010), "{store:?}");
        let wine = lines(&topic, 0).iter().map(|line| value(line)).find(|line| line["inputs"]["n"] == 1).expect("a prediction");
        assert_eq!((&wine["inputs"], &wine["outputs"]), (&json!({"n": 1, "x": 0.1, "text": "\u{e9}\""}), &wine["outputs"]));
        assert_eq!(wine["outputs"].to_string().replace(".0", ""), "[0.5,2]");
        // The ledger came with the records, so the topic can be audited.
        let toml = format!("mode = \"kafka\"\n{toml}");
        let (code, said, errors) = predlog(dir.path(), &toml, &["audit"]);
        assert_eq!(code, Some(0), "{said}{errors}");
    }
}

#[test]
fn a_migration_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 60_000;
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
    log(&direct(&dir.path().join("data"), Store::Sqlite), ROWS as u64);
    let (from, state) = (dir.path().join("data/predictions.db"), dir.path().join("data/predictions.db.sent-to-kafka"));
    let file = dir.path().join("migrate.toml");
    std::fs::write(&file, toml(&dir.path().join("fallback"), &topic)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.args(["migrate", "--to", "kafka", "--from", &format!("sqlite:{}", from.display()), "--config"]).arg(&file);
    let noted = || std::fs::read_to_string(&state).map_or(0, |text| text.lines().count());
    for batches in [3, 5] {
        let mut child = command.spawn().unwrap();
        wait_until("some batches are noted", LONG, || noted() >= batches || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(command.status().unwrap().success());
    let found = records(&topic, ROWS);
    let once: BTreeSet<_> = found.iter().collect();
    assert_eq!(once.len(), ROWS);
    assert!(found.len() - ROWS <= 2 * 10_000, "{} records too many", found.len() - ROWS);
}

#[test]
fn a_history_is_uploaded_once() {
    for (place, store) in [(Place::Sqlite, "sqlite:data/predictions.db"), (Place::Parquet, "parquet:data")] {
        let dir = tempfile::tempdir().unwrap();
        let store_of = if place == Place::Sqlite { Store::Sqlite } else { Store::Parquet };
        log(&direct(&dir.path().join("data"), store_of), 3_000);
        let toml = format!("[upload]\nurl = \"file://{}\"\n", dir.path().join("bucket").display());
        let migrate = || predlog(dir.path(), &toml, &["migrate", "--from", store, "--to", "upload"]);
        let (code, said, errors) = migrate();
        assert_eq!(code, Some(0), "{said}{errors}");
        let all = in_files(&dir.path().join("bucket/predictions"));
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), once.len()), (3_000, 3_000), "{said}{errors}");
        let (code, said, errors) = migrate();
        assert_eq!((code, said.as_str()), (Some(0), "uploaded_files=0 uploaded_bytes=0\n"), "{errors}");
    }
}

#[test]
fn a_second_bucket_is_refused_and_the_first_goes_on() {
    for (store, from) in [(Store::Sqlite, "sqlite:data/predictions.db"), (Store::Parquet, "parquet:data")] {
        let dir = tempfile::tempdir().unwrap();
        let bucket = |name: &str| dir.path().join(name);
        let migrate = |name: &str| {
            let toml = format!("[upload]\nurl = \"file://{}\"\n", bucket(name).display());
            predlog(dir.path(), &toml, &["migrate", "--from", from, "--to", "upload"])
        };
        let config = direct(&dir.path().join("data"), store);
        log(&config, 300);
        assert_eq!(migrate("a").0, Some(0));
        log(&config, 20);
        let (code, said, errors) = migrate("b");
        assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
        assert!(errors.contains("copy the objects") && errors.contains("data/.uploaded-to"), "{errors}");
        let urls = ["a", "b"].map(|name| format!("file://{}", bucket(name).display()));
        assert!(urls.iter().all(|url| errors.contains(url)), "{errors}");
        assert_eq!(files_below(&bucket("b")), 0);
        // What was to come is still to come, where it was.
        assert_eq!(migrate("a").0, Some(0));
        let all = in_files(&bucket("a").join("predictions"));
        assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (320, 320));
        // Asked for, the second one gets what was not uploaded yet, and only that; and it is said of the rest.
        log(&config, 7);
        std::fs::remove_file(dir.path().join("data/.uploaded-to")).unwrap();
        assert_eq!(migrate("b").0, Some(0));
        assert_eq!(
            (in_files(&bucket("b").join("predictions")).len(), in_files(&bucket("a").join("predictions")).len()),
            (7, 320)
        );
        assert_eq!(migrate("b").1, "uploaded_files=0 uploaded_bytes=0\n");
    }
}

#[test]
fn an_upload_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 40_000;
    for (store, from) in [(Store::Sqlite, "sqlite:data/predictions.db"), (Store::Parquet, "parquet:data")] {
        let dir = tempfile::tempdir().unwrap();
        let config = direct(&dir.path().join("data"), store);
        // Each end of a logger finishes two files, and each plan of a database's rows is two.
        (0..ROWS / 2_000).for_each(|_| log(&config, 2_000));
        let bucket = dir.path().join("bucket");
        let toml = format!("[upload]\nurl = \"file://{}\"\nmax_rows = 2000\n", bucket.display());
        std::fs::write(dir.path().join("migrate.toml"), toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        command.args(["migrate", "--from", from, "--to", "upload", "--config", "migrate.toml"]).current_dir(dir.path());
        for files in [2, 6] {
            let mut child = command.spawn().unwrap();
            // An upload to a directory takes a moment only.
            while files_below(&bucket) < files && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success(), "{store:?}: it was through before it was killed");
        }
        let before = files_below(&bucket);
        assert!(command.status().unwrap().success());
        assert!(files_below(&bucket) > before, "{store:?}: all was there before the last run");
        let all = in_files(&bucket.join("predictions"));
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), once.len()), (ROWS, ROWS), "{store:?}");
    }
}

fn files_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), "predictions");
    let toml = toml_for(Place::Kafka, dir.path(), dir.path(), topic, true);
    let said = |args: &[&str], toml: &str| {
        let (code, _, errors) = predlog(dir.path(), toml, args);
        (code, errors)
    };
    let (code, errors) = said(&["migrate", "--from", "mysql:x", "--to", "kafka"], &toml);
    assert!(code == Some(2) && errors.contains("sqlite:PATH or parquet:DIR"), "{errors}");
    let (code, errors) = said(&["migrate", "--from", "sqlite:missing.db", "--to", "kafka"], &toml);
    assert!(code == Some(1) && errors.contains("missing.db"), "{errors}");
    assert!(!dir.path().join("missing.db").exists());
    let (code, errors) = said(&["migrate", "--from", "parquet:.", "--to", "upload"], &toml);
    assert!(code == Some(2) && errors.contains("upload.url"), "{errors}");
    let wrong = toml.replace("[batch]", "backlog = \"kafka\"\n[batch]");
    let (code, errors) = said(&["check"], &wrong);
    assert!(code == Some(2) && errors.contains("direct.backlog") && errors.contains("predlog migrate"), "{errors}");
}

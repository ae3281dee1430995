//! `predlog migrate --to nats`.

use super::migrate::{direct, log};
use super::*;
use support::nats::{Nats, Stored};

/// Of both stores: how `--from` names it.
const STORES: [(Store, &str); 2] = [(Store::Sqlite, "sqlite:data/predictions.db"), (Store::Parquet, "parquet:data")];

fn settings(nats: &Nats) -> String {
    let url = nats.url();
    format!(
        "[nats]\nservers = \"{url}\"\nsubject = \"s.{{model_name}}\"\nstream = \"s\"\ncreate_stream = true\n[nats.fallback]\ndir = \"fallback\"\n"
    )
}

/// Every line of the stream, as often as it is there.
fn stored(nats: &Nats, stream: &str) -> Vec<Vec<u8>> {
    nats.stored(stream).iter().flat_map(Stored::lines).map(<[u8]>::to_vec).collect()
}

fn once(lines: &[Vec<u8>]) -> BTreeSet<Record> {
    let key = |line: &Vec<u8>| {
        let value = value(line);
        (value["writer"].as_str().expect("a writer").to_owned(), value["seq"].as_u64().expect("a seq"))
    };
    lines.iter().map(key).collect()
}

#[test]
fn a_history_is_migrated_to_nats_once() {
    for (store, from) in STORES {
        let (nats, dir) = (Nats::start(), tempfile::tempdir().unwrap());
        let data = dir.path().join("data");
        let migrate = || predlog(dir.path(), &settings(&nats), &["migrate", "--from", from, "--to", "nats"]);
        log(&direct(&data, store), 3_000);
        let (code, said, errors) = migrate();
        assert_eq!(code, Some(0), "{said}{errors}");
        let statements = stored(&nats, "s-ledger").len();
        assert_eq!(said, format!("sent={} refused=0 foreign=0\n", 3_000 + statements), "{errors}");
        let (code, said, errors) = migrate();
        assert_eq!((code, said.as_str()), (Some(0), "sent=0 refused=0 foreign=0\n"), "{errors}");
        log(&direct(&data, store), 10);
        assert_eq!(migrate().0, Some(0));
        let lines = stored(&nats, "s");
        assert_eq!((lines.len(), once(&lines).len()), (3_010, 3_010), "{store:?}");
        let wine = lines.iter().map(|line| value(line)).find(|line| line["inputs"]["n"] == 1).expect("a prediction");
        assert_eq!(wine["inputs"], json!({"n": 1, "x": 0.1, "text": "\u{e9}\""}));
        let subjects: BTreeSet<_> = nats.stored("s").into_iter().map(|message| message.subject).collect();
        assert_eq!(subjects.iter().map(|subject| &**subject).collect::<Vec<_>>(), ["s.beer", "s.wine"]);
        // The ledger came with the records, so the stream can be audited.
        let toml = format!("mode = \"nats\"\n{}", settings(&nats));
        let (code, said, errors) = predlog(dir.path(), &toml, &["audit"]);
        assert_eq!(code, Some(0), "{said}{errors}");
    }
}

/// Within the stream's window for duplicates, not even the batch that was under way is there twice.
#[test]
fn a_migration_to_nats_that_is_killed_goes_on_where_it_was() {
    const ROWS: usize = 60_000;
    for (store, from) in STORES {
        let (nats, dir) = (Nats::start(), tempfile::tempdir().unwrap());
        log(&direct(&dir.path().join("data"), store), ROWS as u64);
        let state = match store {
            Store::Sqlite => dir.path().join("data/predictions.db.sent-to-nats"),
            Store::Parquet => dir.path().join("data/.sent-to-nats"),
        };
        std::fs::write(dir.path().join("migrate.toml"), settings(&nats)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        command.args(["migrate", "--from", from, "--to", "nats", "--config", "migrate.toml"]).current_dir(dir.path());
        let noted = || std::fs::read_to_string(&state).map_or(0, |text| text.lines().count());
        for batches in [2, 4] {
            let mut child = command.spawn().unwrap();
            wait_until("some batches are noted", LONG, || noted() >= batches || child.try_wait().unwrap().is_some());
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success(), "{store:?}: it was through before it was killed");
        }
        assert!(nats.info("s").state.messages < ROWS as u64, "{store:?}: all was there before the last run");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = stored(&nats, "s");
        assert_eq!((lines.len(), once(&lines).len()), (ROWS, ROWS), "{store:?}");
    }
}

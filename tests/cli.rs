//! The program: what it prints, how it exits, and that signals lose nothing.
#![cfg(feature = "cli")]

mod support;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use support::process::wait_until;

const LIMIT: Duration = Duration::from_secs(30);

fn predlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.args(args).env_remove("PREDLOG_CONFIG").env_remove("RUST_LOG");
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = predlog(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A configuration file in `dir`, whose `direct.dir` is `dir/data`.
fn config(dir: &Path, more: &str) -> String {
    let path = dir.join("config.toml");
    std::fs::write(&path, format!("[direct]\ndir = {:?}\n{more}", dir.join("data"))).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A running server, killed when dropped.
struct Serving {
    child: Child,
    out: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    greeting: String,
    url: String,
}

impl Serving {
    fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = predlog(&["serve", "--addr", "127.0.0.1:0", "--dir", dir.to_str().unwrap()]);
        command.envs(settings.iter().copied());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        let mut greeting = String::new();
        while !greeting.contains("and then: ") {
            assert_ne!(out.read_line(&mut greeting).unwrap(), 0, "the server ended: {greeting}");
        }
        let url = greeting.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Serving { child, out, errors, greeting, url }
    }

    fn post(&self, body: &str) -> String {
        let request = reqwest::blocking::Client::new().post(format!("{}/v1/predictions", self.url));
        request.header("content-type", "application/json").body(body.to_owned()).send().unwrap().text().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads standard error until a line has `said` in it.
    fn read_errors_until(&mut self, said: &str) {
        let mut line = String::new();
        while !line.contains(said) {
            line.clear();
            assert_ne!(self.errors.read_line(&mut line).unwrap(), 0, "it ended without a word of {said:?}");
        }
    }

    fn end(&mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server whose data directory is `store`, below the working directory `dir`: a path without a parent.
fn serve_below(dir: &Path, store: &str) -> Serving {
    let mut command = predlog(&["serve", "--addr", "127.0.0.1:0", "--dir", store]);
    command.current_dir(dir).env("PREDLOG_DIRECT__STORE", "parquet");
    Serving::spawn(command)
}

fn count(db: &Path) -> i64 {
    Connection::open(db).and_then(|db| db.query_row("select count(*) from predictions", [], |row| row.get(0))).unwrap_or(0)
}

#[test]
fn help_has_examples_and_version_is_the_crates() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for said in ["Examples:", "predlog serve --config config/simple.toml", "predlog check", "RUST_LOG"] {
        assert!(help.contains(said), "{help}");
    }
    assert!(run(&["serve", "--help"]).1.contains("--addr"));
    assert_eq!(run(&["--version"]).1.trim(), format!("predlog {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["sreve"]).0, Some(2));
}

#[test]
fn what_is_printed_at_the_start_works_and_a_signal_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path(), &[]);
    let quoted = |command: &str| {
        let line = serving.greeting.lines().find(|line| line.contains(command)).unwrap().to_owned();
        line.split('\'').nth(1).unwrap().to_owned()
    };
    let (body, query) = (quoted("curl "), quoted("sqlite3 "));
    assert!(serving.greeting.contains(&format!("{}/predictions.db", dir.path().display())));
    let answer = serving.post(&body);
    assert!(answer.contains("\"accepted\":1"), "{answer}");
    let db = dir.path().join("predictions.db");
    wait_until("the row can be queried", LIMIT, || count(&db) == 1);
    let row: (String, String, String, String) = Connection::open(&db)
        .unwrap()
        .query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap();
    assert_eq!((&*row.1, &*row.2, &*row.3), ("wine", r#"{"alcohol":9.4,"ph":3.51}"#, r#"{"quality":5.2}"#));
    assert!(serving.post(&body).contains("\"accepted\":1"));
    serving.signal(Signal::TERM);
    let (status, rest) = serving.end();
    assert!(status.success() && rest.contains("stopped: accepted=2 delivered=2 on_disk=0 dropped=0"), "{status} {rest}");
    assert_eq!(count(&db), 2);
}

/// Files below `dir` whose name ends so.
fn files(dir: &Path, ending: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| if path.is_dir() { files(&path, ending) } else { usize::from(path.to_str().unwrap().ends_with(ending)) })
        .sum()
}

#[test]
fn a_parquet_store_in_a_path_without_a_parent_leaves_nothing_in_its_spool() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = serve_below(dir.path(), "store");
    let row = r#"{"model_name":"wine","inputs":{"alcohol":9.4},"outputs":{}}"#;
    assert!(serving.post(row).contains("\"accepted\":1"));
    serving.signal(Signal::TERM);
    let (status, rest) = serving.end();
    assert!(status.success() && rest.contains("accepted=1 delivered=1 on_disk=0 dropped=0"), "{status} {rest}");
    let store = dir.path().join("store");
    let found = ["predictions", "ledger", "writers"]
        .map(|part| files(&store.join(part), if part == "writers" { ".zst" } else { ".parquet" }));
    assert_eq!((found[0], found[2]), (1, 0));
    assert!(found[1] > 0, "its ledger is finished too");
}

#[test]
fn a_parquet_store_that_was_deleted_under_the_server_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = serve_below(dir.path(), "store");
    std::fs::remove_dir_all(dir.path().join("store/outbox")).unwrap();
    assert!(serving.post(r#"{"model_name":"wine","inputs":{"alcohol":9.4},"outputs":{}}"#).contains("\"accepted\":1"));
    serving.signal(Signal::TERM);
    let (status, rest) = serving.end();
    assert!(status.success() && rest.contains("delivered=1 on_disk=0"), "{status} {rest}");
    assert_eq!(files(&dir.path().join("store/predictions"), ".parquet"), 1);
}

#[test]
fn a_second_signal_stops_at_once_and_the_next_start_delivers() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("predictions.db");
    let mut serving =
        Serving::start(dir.path(), &[("PREDLOG_SERVER__SHUTDOWN_DEADLINE", "1h"), ("PREDLOG_SQLITE__BUSY_TIMEOUT", "10ms")]);
    assert!(serving.post(r#"{"id":"a","model_name":"m","inputs":1}"#).contains("\"accepted\":1"));
    wait_until("the first row is stored", LIMIT, || count(&db) == 1);
    let lock = Connection::open(&db).unwrap();
    lock.execute_batch("begin exclusive").unwrap();
    assert!(serving.post(r#"{"id":"b","model_name":"m","inputs":1}"#).contains("\"accepted\":1"));
    serving.signal(Signal::INT);
    serving.read_errors_until("a second signal stops at once");
    serving.signal(Signal::INT);
    assert_eq!(serving.end().0.code(), Some(130));
    drop(lock);
    let mut next = Serving::start(dir.path(), &[]);
    wait_until("the second row is delivered", LIMIT, || count(&db) == 2);
    next.signal(Signal::TERM);
    let (status, rest) = next.end();
    assert!(status.success() && rest.contains("recovered=1"), "{status} {rest}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, errors) = run(&["serve", "--addr", &addr, "--dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(errors.contains(&format!("server.addr={addr}")), "{errors}");
}

#[test]
fn an_address_that_others_reach_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = predlog(&["serve", "--addr", "0.0.0.0:0", "--dir", dir.path().to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("there is no authentication") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_wrong_configuration_is_said_line_by_line_and_nothing_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "stor = \"sqlite\"\n[batch]\nmax_row = 1\n");
    for command in ["check", "serve"] {
        let (code, out, errors) = run(&[command, "--config", &file]);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        let lines: Vec<_> = errors.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("error: file=")), "{errors}");
        assert!(errors.contains("did you mean `max_rows`?") && errors.contains("did you mean `store`?"), "{errors}");
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn check_says_what_would_happen_and_tries_it() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    std::fs::create_dir(&bucket).unwrap();
    for store in ["sqlite", "parquet"] {
        let more = format!("store = {store:?}\nretain = \"30d\"\n[upload]\nurl = \"file://{}\"\n", bucket.display());
        let (code, out, errors) = run(&["check", "--config", &config(dir.path(), &more)]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
        for said in [&*format!("store:     {store}"), "for 30days", &format!("file://{}", bucket.display()), "127.0.0.1:8642"] {
            assert!(out.contains(said), "{said}: {out}");
        }
        assert_eq!(out.lines().filter(|line| line.starts_with("ok: ")).count(), 4, "{out}");
    }
    // What was tried has left nothing behind.
    assert_eq!(std::fs::read_dir(&bucket).unwrap().count(), 0);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");
}

#[test]
fn check_names_each_problem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file where the directory should be").unwrap();
    let more = format!("[upload]\nurl = \"file://{}/bucket\"\n", dir.path().join("data").display());
    let (code, _, errors) = run(&["check", "--config", &config(dir.path(), &more)]);
    assert_eq!(code, Some(1), "{errors}");
    let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("error: directory: ") && lines[1].starts_with("error: bucket: "),
        "{errors}"
    );
}

#[test]
fn check_tries_each_sink_and_names_the_key_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("file");
    let more = format!("[[sinks]]\ntype = \"parquet\"\n[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"\ndir = {in_the_way:?}\n");
    let file = config(dir.path(), &more);
    let (code, out, errors) = run(&["check", "--config", &file]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    assert_eq!(out.lines().filter(|line| line.starts_with("ok: ")).count(), 9, "{out}");
    std::fs::remove_dir_all(&in_the_way).unwrap();
    std::fs::write(&in_the_way, "a file where the directory should be").unwrap();
    let (code, out, errors) = run(&["check", "--config", &file]);
    assert!(code == Some(1) && out.contains("sink recent:"), "{out}");
    assert!(errors.starts_with("error: directory: ") && errors.contains("by sinks[1].dir"), "{errors}");
}

#[test]
fn check_finds_a_damaged_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let db = dir.path().join("data/predictions.db");
    let other = Connection::open(&db).unwrap();
    other.execute_batch("create table predictions (x); pragma user_version = 9999").unwrap();
    let (code, _, errors) = run(&["check", "--config", &config(dir.path(), "")]);
    assert!(code == Some(1) && errors.contains("error: store: "), "{errors}");
}

#[test]
fn check_tries_what_a_brokers_mode_needs_beside_the_brokers() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("file");
    std::fs::write(&in_the_way, "no directory").unwrap();
    let more = format!(
        "[kafka]\nbrokers = \"127.0.0.1:9\"\nformat = \"avro\"\nregistry.url = \"http://127.0.0.1:9\"\nfallback.dir = {:?}\n[upload]\nurl = \"file://{}\"",
        dir.path().join("fallback"),
        in_the_way.display()
    );
    let file = config(dir.path(), &more);
    let Output { status, stdout, stderr } = predlog(&["check", "--config", &file]).env("PREDLOG_MODE", "kafka").output().unwrap();
    let (out, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(1), "{out}{errors}");
    assert!(out.contains("backlog:   what direct mode has left in "), "{out}");
    for said in ["error: brokers: ", "error: registry: kafka.registry.url=http://127.0.0.1:9: ", "error: bucket: "] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
}

#[test]
fn an_audit_of_brokers_that_are_away_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "[kafka]\nbrokers = \"127.0.0.1:9\"");
    let Output { status, stdout, stderr } = predlog(&["audit", "--config", &file]).env("PREDLOG_MODE", "kafka").output().unwrap();
    let errors = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout), (Some(1), vec![]), "{errors}");
    let said = "error: kafka.brokers=127.0.0.1:9: the brokers do not answer: ";
    assert!(
        errors.starts_with(said) && errors.contains("Connection refused") && errors.contains("check that they run"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn one_of_several_sinks_is_audited_and_replayed_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = "[[sinks]]\ntype = \"sqlite\"\nname = \"recent\"\n[[sinks]]\ntype = \"parquet\"\n";
    let file = config(dir.path(), sinks);
    let mut serving = Serving::start(&dir.path().join("data"), &[("PREDLOG_CONFIG", &file)]);
    serving.post(r#"{"model_name":"wine","inputs":{"a":1}}"#);
    serving.signal(Signal::TERM);
    assert!(serving.end().0.success());
    for sink in ["recent", "parquet"] {
        let (code, out, errors) = run(&["audit", "--config", &file, "--sink", sink]);
        assert!(code == Some(0) && out.contains("complete: 1 accepted"), "{sink}: {out}{errors}");
        let (code, out, errors) = run(&["replay", "--config", &file, "--sink", sink, "--dry-run"]);
        assert!(code == Some(0) && out.contains("left=0"), "{sink}: {out}{errors}");
    }
    // It is the sink's own table that was looked at.
    let db = dir.path().join("data/sinks/recent/predictions.db");
    Connection::open(&db).unwrap().execute("DELETE FROM predictions", []).unwrap();
    assert_eq!(run(&["audit", "--config", &file, "--sink", "recent"]).0, Some(1));
    assert_eq!(run(&["audit", "--config", &file]).0, Some(0));
    let (code, _, errors) = run(&["audit", "--config", &file, "--sink", "recnt"]);
    assert!(code == Some(2) && errors.contains("--sink=\"recnt\"") && errors.contains("\"recent\", \"parquet\""), "{errors}");
}

#[test]
fn migrate_looks_at_the_section_of_where_it_sends() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(
        dir.path(),
        "[kafka]\npacking = \"ndjson\"\n[kafka.properties]\nacks = 1\n[nats]\nsubject = \"a b\"\n[[sinks]]\ntype = \"sqlite\"",
    );
    for (to, said) in [("kafka", ["kafka.packing=", "kafka.properties.\"acks\""]), ("nats", ["nats.subject=", "\"a b\""])] {
        let (code, _, errors) = run(&["migrate", "--from", "sqlite:nowhere.db", "--to", to, "--config", &file]);
        assert!(code == Some(2) && said.iter().all(|said| errors.contains(said)), "{to}: {errors}");
    }
}

//! NATS mode against a real nats-server: the sink's contract, what is stored, and what becomes of what the server refuses.

mod outage;
#[path = "../support/mod.rs"]
mod support;

use async_nats::jetstream::stream;
use bytesize::ByteSize;
use predlog::config::nats::{Packing, Servers};
use predlog::config::{Mode, NatsSettings};
use predlog::sink::conformance::{self, Harness, Row};
use predlog::sink::nats::NatsSink;
use predlog::sink::{Sink, SinkError};
use predlog::stats::Stats;
use predlog::{Config, Guard, Logger, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::nats::{Nats, Stored};
use support::process::wait_until;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);

fn config(settings: NatsSettings) -> Config {
    Config { mode: Mode::Nats, nats: settings, ..Config::default() }
}

fn open(settings: NatsSettings) -> (Logger, Guard) {
    Logger::open(&config(settings)).expect("the logger opens")
}

fn log(logger: &Logger, n: u64) -> bool {
    matches!(logger.log_parts("wine", "1", &json!({"n": n}), &0.5), Outcome::Accepted { .. })
}

/// How often each number is in the stream.
fn numbers(stored: &[Stored]) -> BTreeMap<u64, u32> {
    let mut times = BTreeMap::new();
    for line in stored.iter().flat_map(Stored::lines) {
        let record: Value = serde_json::from_slice(line).expect("JSON");
        *times.entry(record["inputs"]["n"].as_u64().expect("a number")).or_default() += 1;
    }
    times
}

fn probe_until(sink: &mut NatsSink, what: &str, is_so: impl Fn(&Result<(), SinkError>) -> bool) {
    wait_until(what, LIMIT, || is_so(&sink.probe()));
}

struct Case {
    nats: Rc<Nats>,
    stream: String,
    packing: Packing,
    dir: tempfile::TempDir,
}

impl Harness for Case {
    fn open(&mut self) -> Box<dyn Sink> {
        let settings = NatsSettings { packing: self.packing, ..self.nats.settings(&self.stream, self.dir.path()) };
        let mut sink = NatsSink::open(settings, Uuid::now_v7(), Arc::new(Stats::default())).expect("it opens");
        probe_until(&mut sink, "the stream is made", Result::is_ok);
        Box::new(sink)
    }

    fn stored(&mut self) -> Vec<Row> {
        let mut rows: BTreeMap<(String, u64), Row> = BTreeMap::new();
        for message in self.nats.stored(&self.stream) {
            for row in message.lines().map(Row::of_line) {
                let key = (row.writer.clone(), row.seq);
                let copy = rows.insert(key, row.clone());
                assert!(copy.is_none_or(|copy| copy == row), "copies differ: {row:?}");
            }
        }
        rows.into_values().collect()
    }

    fn fail(&mut self, _failing: bool) -> bool {
        false
    }
}

fn conforms(packing: Packing) {
    let nats = Rc::new(Nats::start());
    let mut cases = 0;
    conformance::run(|| {
        cases += 1;
        let dir = tempfile::tempdir().expect("a temporary directory");
        Case { nats: Rc::clone(&nats), stream: format!("case-{cases}"), packing, dir }
    });
}

#[test]
fn the_sink_keeps_its_contract() {
    conforms(Packing::None);
}

#[test]
fn the_sink_keeps_its_contract_with_many_records_a_message() {
    conforms(Packing::Ndjson);
}

#[test]
fn a_record_is_its_line_under_its_models_subject() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let (logger, guard) = open(nats.settings("s", dir.path()));
    for (model, n) in [("wine", 1), ("a.b", 2)] {
        assert!(matches!(logger.log_parts(model, "1", &json!({"n": n}), &0.5), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    assert_eq!(guard.shutdown(LIMIT).delivered, 2);
    let mut stored = nats.stored("s");
    stored.sort_by(|left, right| left.subject.cmp(&right.subject));
    assert_eq!(stored.iter().map(|message| &*message.subject).collect::<Vec<_>>(), ["s.a_2Eb", "s.wine"]);
    let text = String::from_utf8(stored[1].payload.clone()).expect("UTF-8");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    assert!(text.starts_with("{\"timestamp\":\"") && text.ends_with('}'), "{text}");
    assert_eq!((&record["model_name"], &record["inputs"], &record["outputs"]), (&json!("wine"), &json!({"n": 1}), &json!(0.5)));
    let (writer, seq) = (record["writer"].as_str().expect("a writer"), record["seq"].as_u64().expect("a seq"));
    assert_eq!(stored[1].header("Nats-Msg-Id"), format!("{writer}-{seq}"));
    assert_eq!(stored[1].header("content-type"), "application/json");
    assert_eq!((stored[1].header("predlog-writer"), stored[1].header("predlog-seq")), (writer, &*seq.to_string()));
    let made = nats.info("s").config;
    assert_eq!((made.subjects, made.duplicate_window), (vec!["s.*".to_owned()], Duration::from_secs(120)));
}

#[test]
fn many_records_a_message_are_cut_at_the_same_numbers() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let mut config =
        config(NatsSettings { packing: Packing::Ndjson, linger: Duration::from_secs(1), ..nats.settings("s", dir.path()) });
    config.batch.max_age = Duration::from_secs(1);
    config.logger.lanes = Some(1);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    assert!((0..1_000).all(|n| log(&logger, n)));
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    guard.shutdown(LIMIT);
    let stored = nats.stored("s");
    assert_eq!(numbers(&stored), (0..1_000).map(|n| (n, 1)).collect());
    assert!(stored.len() < 25, "{} messages", stored.len());
    for message in &stored {
        let (first, last) = message.header("predlog-seq").split_once('-').expect("first-last");
        let (first, last): (u64, u64) = (first.parse().expect("a number"), last.parse().expect("a number"));
        assert_eq!(first / 64, last / 64, "{first}-{last}");
        assert_eq!(message.header("Nats-Msg-Id"), format!("{}-{first}-{last}", message.header("predlog-writer")));
        assert_eq!(message.lines().count() as u64, last - first + 1);
    }
}

fn every_record_is_stored_once(nats: &Nats, logger: &Logger, guard: Guard, accepted: u64) {
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    let report = guard.shutdown(LIMIT);
    assert_eq!((report.accepted, report.delivered, report.on_disk), (accepted, accepted, 0));
    let times = numbers(&nats.stored("s"));
    let missing: Vec<u64> = (0..accepted).filter(|n| !times.contains_key(n)).collect();
    assert!(missing.is_empty(), "{} of {accepted} are missing, such as {:?}", missing.len(), missing.first());
    assert_eq!(times.values().filter(|&&times| times > 1).count(), 0, "stored twice");
}

#[test]
fn a_missing_stream_is_named_with_what_to_do() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let (logger, guard) = open(NatsSettings { create_stream: false, ..nats.settings("s", dir.path()) });
    assert!(log(&logger, 0));
    wait_until("the publish is refused", LIMIT, || logger.health().is_err_and(|why| why.contains("nats.create_stream = true")));
    nats.create_stream("s", stream::Config { subjects: vec!["other".to_owned()], ..stream::Config::default() });
    wait_until("the stream has other subjects", LIMIT, || {
        logger.health().is_err_and(|why| why.contains("has subjects=other and not s.*"))
    });
    nats.create_stream("t", stream::Config { subjects: vec!["s.>".to_owned()], ..stream::Config::default() });
    let report = guard.shutdown(Duration::ZERO);
    assert_eq!((report.accepted, report.on_disk), (1, 1));
    let (logger, guard) = open(NatsSettings { stream: "t".to_owned(), ..nats.settings("s", dir.path()) });
    wait_until("the record of the last start is stored", LIMIT, || nats.info("t").state.messages == 1);
    drop(logger);
    assert_eq!(guard.shutdown(LIMIT).recovered, 1);
}

#[test]
fn what_the_server_never_takes_goes_to_the_dead_letters() {
    let (nats, dir) = (Nats::start_with("max_payload: 4096"), tempfile::tempdir().expect("a temporary directory"));
    let (logger, guard) = open(nats.settings("s", dir.path()));
    let large = json!({"n": 1, "text": "x".repeat(10_000)});
    assert!(log(&logger, 0));
    assert!(matches!(logger.log_parts("wine", "1", &large, &0.5), Outcome::Accepted { .. }));
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    assert_eq!(logger.snapshot().unstorable, 1);
    guard.shutdown(LIMIT);
    assert_eq!(numbers(&nats.stored("s")), BTreeMap::from([(0, 1)]));
    let letter = dead_letters(dir.path()).remove(0);
    assert_eq!(letter["record"]["inputs"], large);
    assert_eq!((&letter["topic"], &letter["reason"]), (&json!("s.wine"), &json!("larger than the servers' max_payload=4096")));
}

#[test]
fn what_the_stream_never_takes_goes_to_the_dead_letters() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let subjects = vec!["s.*".to_owned()];
    nats.create_stream("s", stream::Config { subjects, max_message_size: 2048, ..stream::Config::default() });
    let (logger, guard) = open(nats.settings("s", dir.path()));
    assert!(log(&logger, 0));
    let large = json!({"n": 1, "text": "x".repeat(3_000)});
    assert!(matches!(logger.log_parts("wine", "1", &large, &0.5), Outcome::Accepted { .. }));
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    guard.shutdown(LIMIT);
    assert_eq!(numbers(&nats.stored("s")), BTreeMap::from([(0, 1)]));
    let letters = dead_letters(dir.path());
    assert_eq!((letters.len(), &letters[0]["record"]["inputs"]), (1, &large));
    assert!(
        letters[0]["reason"].as_str().is_some_and(|reason| reason.contains("message size exceeds maximum allowed")),
        "{letters:?}"
    );
}

fn dead_letters(dir: &Path) -> Vec<Value> {
    let mut letters = Vec::new();
    for file in std::fs::read_dir(dir.join("dead-letter")).expect("the directory is there") {
        let text = zstd::stream::decode_all(std::fs::File::open(file.expect("a file").path()).expect("it opens")).expect("zstd");
        letters.extend(
            text.split(|&byte| byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice::<Value>(line).expect("JSON")),
        );
    }
    letters
}

#[test]
fn a_probe_never_waits_long_and_says_why() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let stats = Arc::new(Stats::default());
    let mut sink = NatsSink::open(nats.settings("s", dir.path()), Uuid::now_v7(), Arc::clone(&stats)).expect("it opens");
    probe_until(&mut sink, "it answers", Result::is_ok);
    nats.pause();
    let said: BTreeSet<String> = (0..8)
        .map(|_| {
            let start = Instant::now();
            let error = sink.probe().expect_err("a stopped server does not answer");
            assert!(start.elapsed() < Duration::from_secs(1), "it waited for {:?}", start.elapsed());
            error.to_string()
        })
        .collect();
    assert!(said.iter().any(|error| error.contains("have not answered yet")), "{said:?}");
    probe_until(&mut sink, "the answer is too late", |answer| {
        answer.as_ref().is_err_and(|why| why.message.contains("no answer within"))
    });
    nats.resume();
    probe_until(&mut sink, "it answers again", Result::is_ok);
}

#[test]
fn authentication_is_used_and_its_failure_is_told_without_the_secret() {
    let nats = Nats::start_with("authorization { user: me, password: \"hunter2\" }");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let password = dir.path().join("password");
    std::fs::write(&password, "hunter2\n").expect("a file");
    let mut settings = nats.settings("s", dir.path());
    settings.auth.username = Some("me".to_owned());
    settings.auth.password_file = Some(password);
    let sink =
        |settings: &NatsSettings| NatsSink::open(settings.clone(), Uuid::now_v7(), Arc::new(Stats::default())).expect("it opens");
    probe_until(&mut sink(&settings), "it answers", Result::is_ok);
    settings.auth.password = Some(predlog::config::nats::Secret::new("hunter3"));
    let refused =
        |answer: &Result<(), SinkError>| answer.as_ref().is_err_and(|why| why.message.contains("authorization violation"));
    let mut wrong = sink(&settings);
    probe_until(&mut wrong, "it is refused", refused);
    assert!(!format!("{wrong:?} {:?}", wrong.probe()).contains("hunter"), "{wrong:?}");
}

#[test]
fn wrong_settings_are_named() {
    for (wrong, said) in [
        ("servers = \"nats://me:hunter2@h\"", "nats.servers=\"***@h\": expected no credentials in it"),
        ("subject = \"a..{model_name}\"", "nats.subject=\"a..{model_name}\": expected something between two dots"),
        ("stream = \"a.b\"", "nats.stream=\"a.b\": expected 1 to 255 letters"),
        ("deadline = \"1ms\"", "nats.deadline=1ms: expected 100ms to"),
        ("max_message_bytes = \"1GiB\"", "nats.max_message_bytes=1.0 GiB: expected"),
        ("auth = { username = \"me\" }", "nats.auth.password=not set: expected a password"),
        (
            "auth = { token = \"hunter2\", credentials_file = \"a\" }",
            "nats.auth.token=set: expected nothing beside nats.auth.credentials_file",
        ),
        ("auth = { pasword = \"hunter2\" }", "nats.auth.pasword=<hidden>: did you mean `password`?"),
        ("tls = { cert_file = \"a\" }", "nats.tls.key_file=not set"),
    ] {
        let error = Config::from_toml(&format!("mode = \"nats\"\n[nats]\n{wrong}")).expect_err(wrong).to_string();
        assert!(error.contains(said) && !error.contains("hunter2"), "{wrong}: {error}");
    }
}

#[test]
fn what_is_on_its_way_is_bounded_and_all_arrives() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let mut config =
        config(NatsSettings { servers: Servers(format!("{},nats://127.0.0.1:1", nats.url())), ..nats.settings("s", dir.path()) });
    config.logger.queue_bytes = ByteSize::mib(4);
    config.logger.max_record_bytes = ByteSize::kib(64);
    config.batch.max_bytes = ByteSize::mib(1);
    let (logger, guard) = Logger::open(&config).expect("the logger opens");
    let mut accepted = 0;
    for _ in 0..100_000 {
        accepted += u64::from(log(&logger, accepted));
    }
    assert!(accepted > 10_000, "{accepted}");
    every_record_is_stored_once(&nats, &logger, guard, accepted);
}

#[test]
fn what_is_posted_to_the_server_is_in_the_stream_and_check_says_what_is_missing() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let predlog = |command: &str| {
        let mut predlog = Command::new(env!("CARGO_BIN_EXE_predlog"));
        let dir = dir.path().to_str().expect("UTF-8");
        predlog.arg(command).env_remove("PREDLOG_CONFIG").env_remove("RUST_LOG").env("PREDLOG_MODE", "nats");
        predlog.env("PREDLOG_NATS__SERVERS", nats.url()).env("PREDLOG_NATS__FALLBACK__DIR", dir);
        predlog
    };
    let check = predlog("check").output().expect("it runs");
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!check.status.success() && said.contains("stream=predictions does not exist"), "{said}");

    let mut serve = predlog("serve");
    serve.args(["--addr", "127.0.0.1:0"]).env("PREDLOG_NATS__CREATE_STREAM", "true").stdout(Stdio::piped());
    let mut serve = serve.spawn().expect("it starts");
    let mut out = BufReader::new(serve.stdout.take().expect("its output"));
    let mut greeting = String::new();
    while !greeting.contains("and then: ") {
        assert_ne!(out.read_line(&mut greeting).expect("its output"), 0, "it ended: {greeting}");
    }
    assert!(greeting.contains("predictions go to subject=predictions.{model_name}"), "{greeting}");
    let url = greeting.split_whitespace().find(|word| word.starts_with("http://")).expect("its address");
    let sent = json!({"id": "i-1", "model_name": "wine", "model_version": "1", "inputs": {"a": [1, "\u{1F377}"]}, "outputs": {"b": 5.2}});
    let request = reqwest::blocking::Client::new().post(format!("{url}/v1/predictions")).json(&sent);
    assert_eq!(request.send().expect("an answer").status(), 202);
    wait_until("it is in the stream", LIMIT, || nats.stored("predictions").len() == 1);
    kill_process(Pid::from_child(&serve), Signal::TERM).expect("it runs");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("its output");
    assert!(serve.wait().expect("it ends").success() && rest.contains("stopped: accepted=1 delivered=1"), "{rest}");

    let text = String::from_utf8(nats.stored("predictions").remove(0).payload).expect("UTF-8");
    let fields = "\"model_name\":\"wine\",\"id\":\"i-1\",\"model_version\":\"1\",\"inputs\":{\"a\":[1,\"\u{1F377}\"]},\"outputs\":{\"b\":5.2},";
    assert!(text.starts_with("{\"timestamp\":\"") && text.contains(fields) && text.contains(",\"writer\":\""), "{text}");
    let check = predlog("check").output().expect("it runs");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && said.contains("stream=predictions takes subject=predictions.{model_name}"), "{said}");
}

fn audit(nats: &Nats, dir: &Path) -> (bool, String) {
    let mut predlog = Command::new(env!("CARGO_BIN_EXE_predlog"));
    predlog.arg("audit").env_remove("PREDLOG_CONFIG").env_remove("RUST_LOG").env("PREDLOG_MODE", "nats");
    predlog.env("PREDLOG_NATS__SERVERS", nats.url()).env("PREDLOG_NATS__FALLBACK__DIR", dir);
    predlog.env("PREDLOG_NATS__SUBJECT", "s.{model_name}").env("PREDLOG_NATS__STREAM", "s");
    let output = predlog.output().expect("it runs");
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8"))
}

#[test]
fn statements_have_a_stream_of_their_own_and_the_audit_reads_it() {
    for packing in [Packing::None, Packing::Ndjson] {
        let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
        let (logger, guard) = open(NatsSettings { packing, ..nats.settings("s", dir.path()) });
        assert!((0..1_000).all(|n| log(&logger, n)));
        every_record_is_stored_once(&nats, &logger, guard, 1_000);
        let statements = nats.stored("s-ledger");
        assert!(!statements.is_empty() && statements.iter().all(|message| message.subject == "s-ledger"), "{statements:?}");
        let (complete, said) = audit(&nats, dir.path());
        assert!(complete && said.contains("1000"), "{said}");
        nats.delete("s", 2);
        let (complete, said) = audit(&nats, dir.path());
        assert!(!complete && said.contains("missing"), "{said}");
    }
}

#[test]
fn statements_that_no_stream_takes_hold_up_nothing() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    nats.create_stream("s", stream::Config { subjects: vec!["s.*".to_owned()], ..stream::Config::default() });
    let (logger, guard) = open(NatsSettings { create_stream: false, ..nats.settings("s", dir.path()) });
    assert!((0..100).all(|n| log(&logger, n)));
    every_record_is_stored_once(&nats, &logger, guard, 100);
    let letters = dead_letters(dir.path());
    assert!(!letters.is_empty() && letters.iter().all(|letter| letter["topic"] == "s-ledger"), "{letters:?}");
}

#[test]
fn statements_that_the_user_may_not_publish_hold_up_nothing() {
    let permissions = "publish: { allow: [\"s.*\", \"$JS.API.>\"] }";
    let nats = Nats::start_with(&format!(
        "accounts {{ A: {{ jetstream: enabled, users: [ {{ user: me, password: secret, permissions: {{ {permissions} }} }}, {{ user: all, password: all }} ] }} }}\nno_auth_user: all"
    ));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut settings = nats.settings("s", dir.path());
    settings.auth.username = Some("me".to_owned());
    settings.auth.password = Some(predlog::config::nats::Secret::new("secret"));
    let (logger, guard) = open(settings);
    assert!((0..100).all(|n| log(&logger, n)));
    every_record_is_stored_once(&nats, &logger, guard, 100);
    let letters = dead_letters(dir.path());
    let denied = |letter: &Value| letter["reason"].as_str().is_some_and(|reason| reason.contains("Permissions Violation"));
    assert!(!letters.is_empty() && letters.iter().all(|letter| letter["topic"] == "s-ledger" && denied(letter)), "{letters:?}");
}

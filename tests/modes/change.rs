//! One mode, and then another, with kills between them.

use super::*;

/// A server as a process, killed when dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(dir: &Path, toml: &str) -> Self {
        let file = dir.join("serve.toml");
        std::fs::write(&file, toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
        command.args(["serve", "--addr", "127.0.0.1:0", "--config"]).arg(&file).current_dir(dir);
        let mut child = command.env_remove("PREDLOG_CONFIG").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut greeting = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !greeting.contains("and then: ") {
            assert_ne!(out.read_line(&mut greeting).unwrap(), 0, "the server ended: {greeting}");
        }
        let url = greeting.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Serving { child, url }
    }

    /// Logs the rows of these numbers.
    fn post(&self, numbers: std::ops::Range<u64>) {
        let (url, rows) = (format!("{}/v1/predictions", self.url), numbers.end - numbers.start);
        let body: Vec<Value> = numbers
            .map(|n| json!({"model_name": if n % 3 == 0 { "beer" } else { "wine" }, "inputs": {"n": n}, "outputs": 1}))
            .collect();
        let request = reqwest::blocking::Client::new().post(url).header("content-type", "application/json");
        let answer: Value = serde_json::from_str(&request.body(json!(body).to_string()).send().unwrap().text().unwrap()).unwrap();
        assert_eq!(answer["accepted"], rows, "{answer}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // As kill -9 does. An error means that it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server leaves that is killed in one mode is delivered by the next start in another, which may be killed as well.
fn changes(from: Place, to: Place, one_directory: bool) {
    changes_with(7_000, from, to, one_directory, &[0, 0]);
}

/// As [`changes`], with so many records, and a kill so many milliseconds after each start.
fn changes_with(rows: u64, from: Place, to: Place, one_directory: bool, kills: &[u64]) {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
    let data = dir.path().join("data");
    let fallback = if one_directory { data.clone() } else { dir.path().join("fallback") };
    let before = Serving::start(dir.path(), &toml_for(from, &data, &fallback, &topic, true));
    (0..rows / 1_000).for_each(|step| before.post(step * 1_000..(step + 1) * 1_000));
    drop(before);
    let stored = everywhere(&data, &topic).len();
    assert!(stored < rows as usize, "{from:?} {to:?}: nothing is left to deliver");
    let toml = toml_for(to, &data, &fallback, &topic, false);
    for &millis in kills {
        let server = Serving::start(dir.path(), &toml);
        std::thread::sleep(Duration::from_millis(millis));
        drop(server);
    }
    let (logger, guard) = Logger::open(&Config::from_toml(&toml).unwrap()).unwrap();
    let nothing_waits = |dir: &Path| std::fs::read_dir(dir.join("writers")).map_or(0, Iterator::count);
    wait_until("only the own directory is left", LONG, || {
        nothing_waits(&data) + usize::from(!one_directory) * nothing_waits(&fallback) == 1
    });
    drop(logger);
    let report = guard.shutdown(LONG);
    assert_eq!(report.problem, None, "{from:?} {to:?}");
    let all = everywhere(&data, &topic);
    let once: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (rows as usize, rows as usize), "{from:?} {to:?}, {stored} were stored before");
}

#[test]
fn what_a_store_has_not_taken_goes_to_kafka_when_the_mode_is_changed() {
    changes(Place::Sqlite, Place::Kafka, true);
    changes(Place::Sqlite, Place::Kafka, false);
    changes(Place::Parquet, Place::Kafka, true);
    changes(Place::Parquet, Place::Kafka, false);
}

#[test]
fn what_kafka_has_not_taken_goes_to_the_store_when_the_mode_is_changed() {
    changes(Place::Kafka, Place::Sqlite, true);
    changes(Place::Kafka, Place::Sqlite, false);
    changes(Place::Kafka, Place::Parquet, true);
    changes(Place::Kafka, Place::Parquet, false);
}

#[test]
fn a_store_takes_what_another_store_was_given() {
    changes(Place::Parquet, Place::Sqlite, true);
    changes(Place::Sqlite, Place::Parquet, true);
}

/// A direct store whose server was killed before it uploaded anything, and the configuration of Kafka mode over it.
fn killed_before_its_upload(dir: &Path, topic: &str, place: Place, rows: u64, backlog: &str) -> Config {
    let data = dir.join("data");
    let upload = format!("[upload]\nurl = \"file://{}\"\n", dir.join("bucket").display());
    let direct = toml_for(place, &data, &data, topic, true).replace("30s", "50ms");
    // Files are finished soon, and the bucket is not there yet.
    std::fs::write(dir.join("bucket"), b"in the way").unwrap();
    let server = Serving::start(dir, &format!("{direct}[rotation]\nmax_age = \"1s\"\n{upload}"));
    (0..rows / 1_000).for_each(|step| server.post(step * 1_000..(step + 1) * 1_000));
    wait_until("all is stored", LONG, || in_sqlite(&data).len() + in_files(&data.join("predictions")).len() == rows as usize);
    drop(server);
    std::fs::remove_file(dir.join("bucket")).unwrap();
    // What has no answer within the deadline is given again, and may be there by then.
    let kafka = toml_for(Place::Kafka, &data, &data, topic, false).replace("deadline = \"1s\"", "deadline = \"30s\"");
    let kafka = kafka.replace("[batch]", &format!("backlog = \"{backlog}\"\n[batch]"));
    Config::from_toml(&format!("{kafka}{upload}every = \"1s\"\n")).unwrap()
}

#[test]
fn what_waits_for_its_upload_is_uploaded_in_kafka_mode() {
    for place in [Place::Sqlite, Place::Parquet] {
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let config = killed_before_its_upload(dir.path(), &topic, place, 3_000, "upload");
        let (logger, guard) = Logger::open(&config).unwrap();
        assert!(matches!(logger.log_parts("wine", "1", &1, &2), Outcome::Accepted { .. }));
        let bucket = dir.path().join("bucket/predictions");
        wait_until("all is uploaded", LONG, || in_files(&bucket).len() == 3_000);
        guard.shutdown(LONG);
        assert_eq!(in_topic(&topic).len(), 1, "{place:?}");
        let once: BTreeSet<_> = in_files(&bucket).into_iter().collect();
        assert_eq!(once.len(), 3_000, "{place:?}");
    }
}

/// Starts twice, and the second time there is nothing to send.
fn sends_its_backlog_once(config: &Config, bucket: &Path, at_start: impl Fn()) {
    let sent = || read_topic(&config.kafka.brokers, &config.kafka.topic, 3_000);
    for _ in 0..2 {
        let (_logger, guard) = Logger::open(config).unwrap();
        at_start();
        wait_until("all is in Kafka", LONG, || sent().len() >= 3_000);
        guard.shutdown(LONG);
    }
    assert_eq!(sent().len(), 3_000, "nothing is sent twice");
    // Back in direct mode, nothing waits any more.
    let direct = Config { mode: Mode::Direct, ..config.clone() };
    let (_logger, guard) = Logger::open(&direct).unwrap();
    guard.shutdown(LONG);
    assert_eq!(in_files(bucket).len(), 0);
}

#[test]
fn what_waits_for_its_upload_goes_to_kafka_where_that_is_asked_for() {
    for place in [Place::Sqlite, Place::Parquet] {
        eprintln!("{place:?}");
        let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[]));
        let config = killed_before_its_upload(dir.path(), &topic, place, 3_000, "kafka");
        sends_its_backlog_once(&config, &dir.path().join("bucket/predictions"), || {});
    }
}

#[test]
fn a_broker_that_is_slow_to_answer_is_given_nothing_twice() {
    // Of its own, since the others must not wait for it.
    let slow = Kafka::start(&Options::default());
    for place in [Place::Sqlite, Place::Parquet] {
        eprintln!("{place:?}");
        let (dir, topic) = (tempfile::tempdir().unwrap(), format!("{place:?}"));
        slow.create_topic(&topic, 2);
        let mut config = killed_before_its_upload(dir.path(), &topic, place, 3_000, "kafka");
        config.kafka.brokers = slow.bootstrap();
        slow.pause();
        sends_its_backlog_once(&config, &dir.path().join("bucket/predictions"), || {
            std::thread::sleep(Duration::from_secs(3));
            slow.resume();
        });
    }
}

#[test]
fn a_start_in_another_mode_may_be_killed_at_any_moment() {
    let mut random = fastrand::Rng::new();
    let seed = random.u64(..);
    random.seed(seed);
    eprintln!("seed={seed}");
    for (to, one_directory) in [(Place::Parquet, false), (Place::Parquet, true), (Place::Sqlite, false)] {
        let kills: Vec<u64> = (0..6).map(|_| random.u64(0..150)).collect();
        changes_with(60_000, Place::Kafka, to, one_directory, &kills);
    }
    changes_with(60_000, Place::Parquet, Place::Kafka, true, &[random.u64(0..150), random.u64(0..150)]);
}

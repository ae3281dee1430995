//! Kafka is stopped, killed, cut off, full, without its topic, or refuses the client; the logger is killed, alone and together with the broker: `log()` answers
//! all the while, memory stays bounded, and when it is over every accepted (writer, seq) is on the topic.
//!
//! This program is its own child: `case <name>`; `child <dir> <brokers> <seen> <first> <rate> <packed>` (see `crash::log_until_killed`), and `full`, in a mount namespace of its own,
//! whose disk is a tmpfs.

mod crash;
mod stored;
mod support;

use bytesize::ByteSize;
use predlog::config::Mode;
use predlog::config::kafka::{KafkaSettings, Key, Mechanism, Packing, Secret};
use predlog::{Config, Guard, Logger, Outcome};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stored::Row;
use support::kafka::{Kafka, MECHANISMS, Message, Options, PASSWORD, USER, read_topic};
use support::toxiproxy::Toxiproxy;
use tempfile::TempDir;

const TOPIC: &str = "predictions";
const PARTITIONS: i32 = 3;
const LONG: Duration = Duration::from_secs(60);
/// Records a second of the callers.
const RATE: u64 = 20_000;
/// How long an outage lasts: longer than the deadline, so that the fallback is used.
const OUTAGE: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(2);
const QUEUE: ByteSize = ByteSize::mib(32);
const KILLS: u64 = 20;

type Case = fn();

const CASES: [(&str, Case); 9] = [
    ("stopped", stopped),
    ("killed", killed),
    ("cut off", cut_off),
    ("topic deleted", topic_deleted),
    ("refused", refused),
    ("disk full", disk_full),
    ("logger killed", || logger_killed("while Kafka is up", false, KILLS, 50_000, |_, _| ())),
    ("logger killed, packed", || logger_killed("while Kafka is up", true, KILLS, 50_000, |_, _| ())),
    ("both killed", both_killed),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("child") => return child(&arguments),
        Some("full") => return full(Path::new(&arguments[1])),
        Some("--list") => return,
        _ => {}
    }
    if let [word, name] = &arguments[..]
        && word == "case"
    {
        let case = CASES.iter().find(|case| case.0 == name).expect("a case");
        return case.1();
    }
    let only = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (name, _) in CASES.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only.as_str()))) {
        // In a process of its own, so that its memory is its own.
        let this = std::env::current_exe().expect("this program");
        let status = Command::new(this).args(["case", name]).status().expect("the case starts");
        assert!(status.success(), "case {name:?} failed with {status}");
        println!("test {name} ... ok");
    }
    println!("{} passed, 0 failed", CASES.len());
}

fn config(dir: &Path, brokers: &str) -> Config {
    let mut config = Config { mode: Mode::Kafka, ..Config::default() };
    config.kafka =
        KafkaSettings { brokers: brokers.to_owned(), topic: TOPIC.to_owned(), deadline: DEADLINE, ..KafkaSettings::default() };
    config.kafka.fallback.dir = dir.to_owned();
    // Where `crash::drain` looks for what dead processes left.
    config.direct.dir = dir.to_owned();
    config.logger.queue_bytes = QUEUE;
    config
}

/// A broker, a logger, and what it accepted.
struct Run {
    dir: TempDir,
    config: Config,
    logger: Logger,
    guard: Guard,
    accepted: u64,
    dropped: u64,
    nanos: Vec<u64>,
}

impl Run {
    fn start(brokers: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = config(dir.path(), brokers);
        let (logger, guard) = Logger::open(&config).expect("the logger opens, whatever the brokers do");
        Run { dir, config, logger, guard, accepted: 0, dropped: 0, nanos: Vec::new() }
    }

    fn log_one(&mut self) {
        let inputs = serde_json::json!({"n": self.accepted, "text": "x".repeat(250)});
        let start = Instant::now();
        let outcome = self.logger.log_parts("wine", "1", &inputs, &0.5);
        self.nanos.push(start.elapsed().as_nanos() as u64);
        match outcome {
            Outcome::Accepted { .. } => self.accepted += 1,
            Outcome::Dropped(_) => self.dropped += 1,
        }
    }

    fn log_for(&mut self, duration: Duration) {
        let start = Instant::now();
        let mut logged = 0;
        while start.elapsed() < duration {
            while logged < start.elapsed().as_micros() as u64 * RATE / 1_000_000 {
                self.log_one();
                logged += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Logs in peace, in trouble, and after it; `heal` may replace the broker.
    fn through(&mut self, trouble: impl FnOnce(), heal: impl FnOnce() + Send) {
        self.log_for(Duration::from_secs(1));
        trouble();
        // Under a fault that lets questions through and records not, health comes and goes.
        let (start, mut seen) = (Instant::now(), false);
        while start.elapsed() < OUTAGE {
            self.log_for(Duration::from_millis(100));
            seen |= self.logger.health().is_err();
        }
        assert!(seen, "an outage is seen");
        let healed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                heal();
                healed.store(true, Ordering::Release);
            });
            while !healed.load(Ordering::Acquire) {
                self.log_for(Duration::from_millis(50));
            }
        });
        self.log_for(Duration::from_secs(1));
    }

    /// All is delivered, and on the topic; what the consumer has `before` that counts too.
    fn end(mut self, name: &str, brokers: &str, before: Vec<Message>) {
        assert!(self.logger.flush(LONG), "{name}: {:?} {:?}", self.logger.health(), self.logger.snapshot());
        let report = self.guard.shutdown(LONG);
        assert_eq!((report.accepted, report.delivered, report.on_disk), (self.accepted, self.accepted, 0), "{name}: {report:?}");
        assert_eq!(self.dropped, 0, "{name}: there was room for all");
        assert_eq!(stored::files(&self.dir.path().join("writers")), Vec::<std::path::PathBuf>::new(), "{name}: nothing is left");
        let rss = resident_mib();
        let messages: Vec<Message> = before.into_iter().chain(read_topic(brokers, TOPIC, 0)).collect();
        let copies = messages.len();
        let rows = once(messages);
        assert_eq!(rows.len() as u64, self.accepted, "{name}: each accepted record once");
        self.nanos.sort_unstable();
        let quantile = |q: f64| self.nanos[((self.nanos.len() - 1) as f64 * q) as usize];
        assert!(rss < QUEUE.as_u64() as f64 / 1e6 + 250.0, "{name}: {rss} MiB");
        println!(
            "  {name}: {} accepted, all on the topic, {} messages twice; log() p50 {} ns, p99 {} ns, p99.9 {} ns, max {} us; peak {rss:.0} MiB",
            self.accepted,
            copies - rows.len(),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0) / 1_000
        );
        drop(self.config);
    }
}

/// The largest resident memory of this process so far.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// As whoever stores the topic sees it: copies of a record are equal, in key, partition and text, and count once.
fn once(messages: Vec<Message>) -> Vec<Row> {
    let mut rows: BTreeMap<(String, u64), (i32, Vec<u8>)> = BTreeMap::new();
    for message in messages {
        let text = message.value.expect("a value");
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let value: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            let key = (value["writer"].as_str().expect("a writer").to_owned(), value["seq"].as_u64().expect("a seq"));
            let found = (message.partition, line.to_vec());
            let before = rows.insert(key, found.clone());
            assert!(before.is_none_or(|before| before == found), "a replay differs from the first try");
        }
    }
    let row = |((writer, seq), (_, line)): ((String, u64), (i32, Vec<u8>))| {
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        let id = value["id"].as_str().expect("an id").to_owned();
        Row { writer, seq, id, inputs: value["inputs"].clone(), outputs: value["outputs"].clone() }
    };
    rows.into_iter().map(row).collect()
}

fn broker(options: &Options<'_>) -> Kafka {
    let kafka = Kafka::start(options);
    kafka.create_topic(TOPIC, PARTITIONS);
    kafka
}

/// SIGSTOP: connections stand, and nothing answers.
fn stopped() {
    let kafka = broker(&Options::default());
    let mut run = Run::start(&kafka.bootstrap());
    run.through(|| kafka.pause(), || kafka.resume());
    run.end("stopped", &kafka.bootstrap(), Vec::new());
}

fn killed() {
    let kafka = std::sync::Mutex::new(broker(&Options::default()));
    let brokers = kafka.lock().expect("a broker").bootstrap();
    let mut run = Run::start(&brokers);
    run.through(|| kafka.lock().expect("a broker").kill(), || kafka.lock().expect("a broker").restart());
    run.end("killed", &brokers, Vec::new());
}

fn cut_off() {
    let toxiproxy = Toxiproxy::start();
    let kafka = broker(&Options { proxied: Some(&toxiproxy), ..Options::default() });
    let mut run = Run::start(&kafka.proxied());
    run.through(|| kafka.proxy().disable(), || kafka.proxy().enable());
    // Slow: one KB a second is as good as nothing.
    let slow = serde_json::json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1}});
    run.through(|| kafka.proxy().add_toxic(&slow), || kafka.proxy().remove_toxics());
    run.end("cut off", &kafka.bootstrap(), Vec::new());
}

/// What a deleted topic had is gone, so the consumer reads it before; nothing of what comes after is missing.
fn topic_deleted() {
    let kafka = broker(&Options::default());
    let mut run = Run::start(&kafka.bootstrap());
    run.log_for(Duration::from_secs(1));
    assert!(run.logger.flush(LONG));
    let before = read_topic(&kafka.bootstrap(), TOPIC, 0);
    assert_eq!(before.len() as u64, run.accepted);
    kafka.delete_topic(TOPIC);
    run.log_for(OUTAGE);
    let health = run.logger.health().expect_err("a missing topic is seen");
    assert!(health.contains(TOPIC), "{health}");
    kafka.create_topic(TOPIC, PARTITIONS);
    run.log_for(Duration::from_secs(2));
    run.end("topic deleted", &kafka.bootstrap(), before);
}

/// A wrong certificate and a wrong password: the logger runs, and a start with the right ones delivers what it took.
fn refused() {
    let kafka = broker(&Options { tls: true, mtls: true, sasl: true, ..Options::default() });
    let certificates = kafka.certificates();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tls = |brokers: String| {
        let mut config = config(dir.path(), &brokers);
        config.kafka.tls.enabled = true;
        config.kafka.tls.ca_file = Some(certificates.ca());
        config
    };
    let mut wrong_ca = tls(kafka.tls());
    wrong_ca.kafka.tls.ca_file = Some(certificates.other_ca());
    let no_certificate = tls(kafka.mtls());
    let mut mutual = tls(kafka.mtls());
    mutual.kafka.tls.cert_file = Some(certificates.client_certificate());
    mutual.kafka.tls.key_file = Some(certificates.client_key());
    let password = |mechanism, password: &str| {
        let mut config = tls(kafka.sasl());
        (config.kafka.sasl.mechanism, config.kafka.sasl.username) = (Some(mechanism), Some(USER.to_owned()));
        config.kafka.sasl.password = Some(Secret::new(password));
        config
    };
    let mut accepted = 0;
    let refusals = [
        (wrong_ca, tls(kafka.tls()), "certificate"),
        (no_certificate, mutual, "certificate"),
        (password(Mechanism::ScramSha512, "wrong-secret"), password(Mechanism::ScramSha512, PASSWORD), "uthentication"),
        (password(Mechanism::Plain, "wrong-secret"), password(Mechanism::ScramSha256, PASSWORD), "uthentication"),
    ];
    assert_eq!(MECHANISMS.len(), 3);
    for (wrong, right, said) in
        refusals.into_iter().chain([(config(dir.path(), &kafka.tls()), password(Mechanism::Plain, PASSWORD), "")])
    {
        let (logger, guard) = Logger::open(&wrong).expect("the logger opens");
        for _ in 0..1_000 {
            assert!(matches!(logger.log_parts("wine", "1", &serde_json::json!({"n": accepted}), &1), Outcome::Accepted { .. }));
            accepted += 1;
        }
        support::process::wait_until("the refusal is seen", LONG, || logger.health().is_err());
        let health = logger.health().expect_err("it was seen");
        assert!(health.contains(said) && !health.contains("secret"), "{health:?} should say {said:?}");
        let report = guard.shutdown(Duration::from_millis(200));
        assert_eq!((report.delivered, report.on_disk), (0, 1_000), "{report:?}");
        assert!(!format!("{wrong:?}{logger:?}").contains("secret"));
        crash::drain(&right, || ());
    }
    let rows = once(read_topic(&kafka.bootstrap(), TOPIC, accepted as usize));
    assert_eq!(rows.len() as u64, accepted);
    println!("  refused: {accepted} accepted under wrong certificates and passwords, all on the topic after the right ones");
}

/// In a child with a mount namespace of its own: the broker's disk is a small tmpfs.
fn disk_full() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let this = std::env::current_exe().expect("this program");
    let status = unshare.arg(this).arg("full").arg(dir.path()).status().expect("unshare starts");
    assert!(status.success(), "{status}; where it may not mount, run the tests as root or allow user namespaces");
}

fn full(dir: &Path) {
    let disk = dir.join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&disk).status().expect("mount starts");
    assert!(mounted.success());
    let (data, ballast) = (disk.join("kafka"), disk.join("ballast"));
    std::fs::create_dir(&data).expect("a directory");
    std::fs::write(&ballast, vec![0; 24 << 20]).expect("there is room for it");
    // Segments are not reserved, so that the disk fills up by what is written.
    let properties = [("log.segment.bytes", "8388608"), ("log.index.size.max.bytes", "65536")];
    let kafka = std::sync::Mutex::new(broker(&Options { data: Some(&data), properties: &properties, ..Options::default() }));
    let brokers = kafka.lock().expect("a broker").bootstrap();
    let mut run = Run::start(&brokers);
    // Compressed, a second is about 1 MB: the rest of the disk is taken at once.
    run.through(
        || fill(&disk.join("rest")),
        || {
            std::fs::remove_file(disk.join("rest")).expect("it was there");
            std::fs::remove_file(&ballast).expect("it was there");
            // A broker whose only disk has failed ends itself.
            kafka.lock().expect("a broker").restart();
        },
    );
    run.end("disk full", &brokers, Vec::new());
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}

fn packed(config: &mut Config) {
    (config.kafka.packing, config.kafka.key) = (Packing::Ndjson, Key::None);
}

fn child(arguments: &[String]) {
    let mut config = config(Path::new(&arguments[1]), &arguments[2]);
    if arguments[6] == "true" {
        packed(&mut config);
    }
    config.kafka.deadline = Duration::from_millis(500);
    crash::log_until_killed(
        &config,
        arguments[5].parse().expect("a number"),
        Path::new(&arguments[3]),
        arguments[4].parse().expect("a number"),
    );
}

/// Children that are killed one after the other; `trouble` runs while each works, with the number of its kill.
fn logger_killed(name: &str, packs: bool, kills: u64, rate: u64, mut trouble: impl FnMut(&mut Kafka, u64)) {
    let mut kafka = broker(&Options::default());
    let brokers = kafka.bootstrap();
    let work = tempfile::tempdir().expect("a temporary directory");
    let dir = work.path().join("data");
    let mut noted = Vec::new();
    for kill in 0..kills {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * crash::PER_CHILD);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .arg("child")
            .arg(&dir)
            .arg(&brokers)
            .arg(&seen)
            .arg(first.to_string())
            .arg(rate.to_string())
            .arg(packs.to_string());
        let child = command.spawn().expect("the child starts");
        trouble(&mut kafka, kill);
        noted.push(crash::kill_at_random(child, seen, first, Duration::from_millis(1_000)));
    }
    trouble(&mut kafka, kills);
    let mut last = config(&dir, &brokers);
    if packs {
        packed(&mut last);
    }
    crash::drain(&last, || ());
    let messages = read_topic(&brokers, TOPIC, 0);
    let records = messages.len();
    let rows = once(messages);
    crash::assert_stored(&format!("logger killed {name}, {records} messages"), &rows, &noted, 10_000);
}

/// In the middle of an outage, and together with the broker.
fn both_killed() {
    logger_killed("in outages and together with the broker", false, 8, RATE, |kafka, kill| match kill % 4 {
        0 => kafka.restart(),
        1 => kafka.pause(),
        2 => kafka.resume(),
        _ => kafka.kill(),
    });
}

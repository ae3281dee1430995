//! A thousand partitions with a trickle each.

use crate::support::process::{free_address, http, wait_until};
use crate::{Archive, broker};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PARTITIONS: i32 = 1_000;
const MODELS: u64 = 20;
/// Messages of each partition.
const TRICKLE: u64 = 40;
const MOST_MEMORY_KB: u64 = 256 << 10;

#[test]
fn a_thousand_partitions_of_twenty_models_take_little_memory_and_few_files() {
    let archive = Archive::new(PARTITIONS);
    produce(archive.topic());
    let file = archive.dir.path().join("archive.toml");
    let addr = free_address();
    let toml = format!(
        "[kafka]\nbrokers = {:?}\ntopic = {:?}\n[rotation]\nmax_age = \"5s\"\n[upload]\nurl = {:?}\n[archive]\ngroup = \"many\"\ndir = {:?}\nmetrics_addr = \"{addr}\"\n",
        broker().bootstrap(),
        archive.topic(),
        archive.config.upload.url.as_deref().expect("a URL"),
        archive.config.archive.dir
    );
    std::fs::write(&file, toml).expect("the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_predlog"));
    command.arg("archive").arg("--config").arg(&file).env("RUST_LOG", "warn").stdout(Stdio::null());
    let mut archiver = Running(command.spawn().expect("predlog starts"));
    let metric = |name: &str| -> f64 {
        let text = http("GET", addr, "/metrics", "").map(|(_, text)| text).unwrap_or_default();
        let values = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let messages = TRICKLE * PARTITIONS as u64;
    wait_until("all messages are stored, by their age alone", Duration::from_secs(180), || {
        metric("predlog_archive_messages_total") == messages as f64
    });
    assert_eq!(metric("predlog_archive_lag"), 0.0);
    assert!(metric("predlog_archive_watermark_seconds") > 0.0);
    let peak = status(archiver.0.id(), "VmHWM:");
    assert!(peak < MOST_MEMORY_KB, "peak memory {peak} kB");
    let open = std::fs::read_dir(format!("/proc/{}/fd", archiver.0.id())).expect("its files").count();
    assert!(open < 100, "{open} files are open when all is stored");
    // The ledger's topic, which is idle, has one too.
    let of_topic = format!("{}+", archive.topic());
    let marks = || super::relative(&archive.bucket().join("_watermark")).iter().filter(|name| name.contains(&of_topic)).count();
    wait_until("each partition has a watermark", Duration::from_secs(60), || marks() == PARTITIONS as usize);
    archiver.end();
    println!("peak {} MiB, {open} files open", peak >> 10);
    assert_eq!(archive.count(), messages);
}

fn produce(topic: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().expect("a producer");
    for n in 0..TRICKLE {
        for partition in 0..PARTITIONS {
            let value = format!("{{\"id\":\"{partition}-{n}\",\"model_name\":\"m{}\",\"inputs\":{{\"x\":{n}}}}}", n % MODELS);
            let record = || BaseRecord::<(), str>::to(topic).partition(partition).payload(&value);
            while producer.send(record()).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes all");
}

fn status(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

struct Running(Child);

impl Running {
    fn end(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
    }
}

//! kill -9 of a logger in NATS mode at random moments, while the server is up, and in outages and together with it: afterwards every record that `log()`
//! accepted is in the stream, once.
//!
//! This program is its own child: `child <dir> <server> <seen> <first>` (see `crash::log_until_killed`).

mod crash;
mod stored;
mod support;

use async_nats::jetstream::stream;
use predlog::Config;
use predlog::config::nats::Servers;
use predlog::config::{Mode, NatsSettings};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::nats::{Nats, Stored};

const KILLS: u64 = 20;
const RATE: u64 = 50_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => {
            let first = arguments[5].parse().expect("a number");
            let config = config(Path::new(&arguments[2]), &arguments[3]);
            return crash::log_until_killed(&config, RATE, Path::new(&arguments[4]), first);
        }
        Some("--list") => return,
        _ => {}
    }
    let before = kills("while the server is up", KILLS, |_, _| ());
    assert!(before > 10_000, "the children sent only {before} before they were killed");
    kills("in outages and together with the server", 8, |nats, kill| match kill % 4 {
        0 => nats.pause(),
        1 => nats.resume(),
        2 => nats.kill(),
        _ => nats.restart(),
    });
    println!("test every accepted record is stored once after kills ... ok");
}

fn config(dir: &Path, server: &str) -> Config {
    let mut config = Config {
        mode: Mode::Nats,
        nats: NatsSettings {
            servers: Servers(server.to_owned()),
            // Shorter than a child lives.
            deadline: Duration::from_millis(300),
            // All kills are to be within it.
            duplicate_window: Duration::from_secs(3600),
            ..NatsSettings::default()
        },
        ..Config::default()
    };
    config.nats.fallback.dir = dir.to_owned();
    // Where `crash` looks for what is left.
    config.direct.dir = dir.to_owned();
    config
}

/// `trouble` comes while each child works, with the number of its kill, and is over after the last. Returns what the children had sent.
fn kills(name: &str, kills: u64, mut trouble: impl FnMut(&mut Nats, u64)) -> u64 {
    let (mut nats, work) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let dir = work.path().join("data");
    let config = config(&dir, &nats.url());
    let (subjects, duplicate_window) = (vec!["predictions.*".to_owned()], config.nats.duplicate_window);
    nats.create_stream("predictions", stream::Config { subjects, duplicate_window, ..stream::Config::default() });
    let mut noted = Vec::new();
    for kill in 0..kills {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * crash::PER_CHILD);
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.arg("child").arg(&dir).arg(nats.url()).arg(&seen).arg(first.to_string());
        let child = child.spawn().expect("the child starts");
        trouble(&mut nats, kill);
        noted.push(crash::kill_at_random(child, seen, first, Duration::from_millis(600)));
    }
    let before = nats.info("predictions").state.messages;
    println!("  {name}: sent by the children before they were killed: {before}");
    crash::drain(&config, || ());
    let rows: Vec<stored::Row> = nats.stored("predictions").iter().flat_map(Stored::lines).map(row).collect();
    crash::assert_stored(&format!("nats, killed {name}"), &rows, &noted, kills as usize * 1_000);
    before
}

fn row(line: &[u8]) -> stored::Row {
    let record: serde_json::Value = serde_json::from_slice(line).expect("JSON");
    let text = |key: &str| record[key].as_str().expect("text").to_owned();
    stored::Row {
        writer: text("writer"),
        seq: record["seq"].as_u64().expect("a number"),
        id: text("id"),
        inputs: record["inputs"].clone(),
        outputs: record["outputs"].clone(),
    }
}

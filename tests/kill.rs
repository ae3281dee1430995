//! kill -9 at random moments: afterwards every record that `log()` accepted is stored exactly once, in both stores, and in each sink of a fan-out.
//!
//! This program is its own child: `child <dir> <store> <seen> <first>` (see `crash::log_until_killed`).

mod crash;
mod stored;

use predlog::Config;
use predlog::config::Store;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const KILLS: u64 = 30;
const RATE: u64 = 50_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => return child(&arguments),
        Some("--list") => return,
        _ => {}
    }
    for case in [Case::Sqlite, Case::Parquet, Case::Both] {
        kills(case);
        println!("test {case:?}: every accepted record is stored once after {KILLS} kills ... ok");
    }
    println!("3 passed, 0 failed");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Sqlite,
    Parquet,
    /// SQLite, and Parquet by `[[sinks]]`.
    Both,
}

/// The directory of the fan-out's other sink.
const OTHER: &str = "sinks/parquet";

fn config(dir: &Path, case: Case) -> Config {
    let mut config = Config::default();
    if case == Case::Both {
        config.sinks = Config::from_toml("[[sinks]]\ntype = \"parquet\"").expect("a configuration").sinks;
    }
    config.direct.dir = dir.to_owned();
    config.direct.store = if case == Case::Parquet { Store::Parquet } else { Store::Sqlite };
    // Small enough that segments are sealed, and lanes swapped, many times within a child's short life.
    config.rotation.max_rows = 3_000;
    config.batch.max_age = Duration::from_millis(10);
    config.ledger.every = Duration::from_millis(20);
    config
}

fn child(arguments: &[String]) {
    let case = match &*arguments[3] {
        "Sqlite" => Case::Sqlite,
        "Parquet" => Case::Parquet,
        _ => Case::Both,
    };
    let first = arguments[5].parse().expect("a number");
    crash::log_until_killed(&config(Path::new(&arguments[2]), case), RATE, Path::new(&arguments[4]), first);
}

fn kills(case: Case) {
    let work = tempfile::tempdir().expect("a temporary directory");
    let dir = work.path().join("data");
    let mut noted = Vec::new();
    for kill in 0..KILLS {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * crash::PER_CHILD);
        let this = std::env::current_exe().expect("this program");
        let mut child = Command::new(this);
        child.arg("child").arg(&dir).arg(format!("{case:?}")).arg(&seen).arg(first.to_string());
        noted.push(crash::kill_at_random(child.spawn().expect("the child starts"), seen, first, Duration::from_millis(300)));
    }
    crash::drain(&config(&dir, case), || ());
    let rows = if case == Case::Parquet { stored::parquet(&dir) } else { stored::sqlite(&dir) };
    crash::assert_stored(&format!("{case:?}"), &rows, &noted, KILLS as usize * 1_000);
    #[cfg(feature = "cli")]
    audited(&dir, rows.len() as u64);
    if case == Case::Both {
        let other = dir.join(OTHER);
        crash::drain(&config(&other, Case::Parquet), || ());
        let rows = stored::parquet(&other);
        crash::assert_stored("Both, in the other sink", &rows, &noted, KILLS as usize * 1_000);
        #[cfg(feature = "cli")]
        audited(&other, rows.len() as u64);
    }
}

/// The ledger says the same, whatever the kills cut short.
#[cfg(feature = "cli")]
fn audited(dir: &Path, rows: u64) {
    use predlog::audit::{Target, Window, audit};
    let report = audit(&Target::Directory(dir.to_owned()), Window::default(), &mut |_| ()).expect("the audit runs");
    assert!(report.complete, "{report}");
    assert_eq!((report.total.accepted, report.total.stored), (rows, rows), "{report}");
}

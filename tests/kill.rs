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
/// More than the parquet store compresses on the way to its files.
const FAST: u64 = 300_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => return child(&arguments),
        Some("--list") => return,
        _ => {}
    }
    for case in [Case::Sqlite, Case::Parquet, Case::Raw, Case::Both] {
        kills(case);
        println!("test {case:?}: every accepted record is stored once after {KILLS} kills ... ok");
    }
    println!("4 passed, 0 failed");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Sqlite,
    Parquet,
    /// The same, with batches so large that segments are not compressed.
    Raw,
    /// SQLite, and Parquet by `[[sinks]]`.
    Both,
}

impl Case {
    fn is_parquet(self) -> bool {
        matches!(self, Case::Parquet | Case::Raw)
    }
}

/// The directory of the fan-out's other sink.
const OTHER: &str = "sinks/parquet";

fn config(dir: &Path, case: Case) -> Config {
    let mut config = Config::default();
    if case == Case::Both {
        config.sinks = Config::from_toml("[[sinks]]\ntype = \"parquet\"").expect("a configuration").sinks;
    }
    config.direct.dir = dir.to_owned();
    config.direct.store = if case.is_parquet() { Store::Parquet } else { Store::Sqlite };
    // Small enough that segments are sealed, and lanes swapped, many times within a child's short life.
    config.rotation.max_rows = 3_000;
    config.batch.max_age = Duration::from_millis(10);
    config.ledger.every = Duration::from_millis(20);
    if case == Case::Raw {
        config.rotation.max_rows = 100_000;
        config.batch.max_age = Duration::from_millis(50);
    }
    config
}

fn child(arguments: &[String]) {
    let case = match &*arguments[3] {
        "Sqlite" => Case::Sqlite,
        "Parquet" => Case::Parquet,
        "Raw" => Case::Raw,
        _ => Case::Both,
    };
    let first = arguments[5].parse().expect("a number");
    let rate = if case == Case::Raw { FAST } else { RATE };
    crash::log_until_killed(&config(Path::new(&arguments[2]), case), rate, Path::new(&arguments[4]), first);
}

fn kills(case: Case) {
    let work = tempfile::tempdir().expect("a temporary directory");
    let dir = work.path().join("data");
    let (mut noted, mut raw) = (Vec::new(), 0);
    for kill in 0..KILLS {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * crash::PER_CHILD);
        let this = std::env::current_exe().expect("this program");
        let mut child = Command::new(this);
        child.arg("child").arg(&dir).arg(format!("{case:?}")).arg(&seen).arg(first.to_string());
        noted.push(crash::kill_at_random(child.spawn().expect("the child starts"), seen, first, Duration::from_millis(300)));
        raw += usize::from(left_raw(&dir));
    }
    assert_eq!(raw > 0, case == Case::Raw, "{case:?}: raw segments were left by {raw} of {KILLS} children");
    crash::drain(&config(&dir, case), || ());
    let rows = if case.is_parquet() { stored::parquet(&dir) } else { stored::sqlite(&dir) };
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

/// Whether a killed child has left a segment whose lines can be read as they are.
fn left_raw(dir: &Path) -> bool {
    let segments = stored::files(&dir.join("writers")).into_iter().filter(|path| path.to_string_lossy().ends_with(".ndjson.zst"));
    // The next start may be taking them over.
    let texts = segments.filter_map(|path| std::fs::read(path).ok());
    texts.into_iter().any(|text| text.windows(11).filter(|part| part == b"\"timestamp\"").count() > 1_000)
}

/// The ledger says the same, whatever the kills cut short.
#[cfg(feature = "cli")]
fn audited(dir: &Path, rows: u64) {
    use predlog::audit::{Target, Window, audit};
    let report = audit(&Target::Directory(dir.to_owned()), Window::default(), &mut |_| ()).expect("the audit runs");
    assert!(report.complete, "{report}");
    assert_eq!((report.total.accepted, report.total.stored), (rows, rows), "{report}");
}

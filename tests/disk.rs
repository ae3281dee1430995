//! A full disk, a directory that nobody may write to, a database that another process has locked: `log()` answers all the while, what is dropped is counted by
//! its reason, and when it is over everything accepted is stored once.
//!
//! This program is its own child. The disk that fills up is a tmpfs in a mount namespace of the child's own (`unshare`), so no real disk is filled.

mod stored;

use bytesize::ByteSize;
use predlog::config::Store;
use predlog::{Config, Guard, Logger, Outcome};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
/// Whom the operating system denies what root may do.
const NOBODY: u32 = 65_534;

type Case = fn(&Path);

const CASES: [(&str, bool, Case); 5] = [
    ("sqlite-full", true, |dir| full(dir, Store::Sqlite)),
    ("parquet-full", true, |dir| full(dir, Store::Parquet)),
    ("sqlite-readonly", false, |dir| readonly(dir, Store::Sqlite)),
    ("parquet-readonly", false, |dir| readonly(dir, Store::Parquet)),
    ("sqlite-locked", false, locked),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => {
            let case = CASES.iter().find(|case| case.0 == arguments[2]).expect("a case");
            return (case.2)(Path::new(&arguments[3]));
        }
        Some("hold") => return hold(Path::new(&arguments[2])),
        Some("--list") => return,
        _ => {}
    }
    for (name, mounts, _) in CASES {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = command(mounts).args(["child", name]).arg(dir.path()).status().expect("the child starts");
        assert!(
            status.success(),
            "case {name} failed with {status}; where it may not mount, run the tests as root or allow user namespaces"
        );
        println!("test {name} ... ok");
    }
    println!("{} passed, 0 failed", CASES.len());
}

/// This program, in a mount namespace of its own if it `mounts`.
fn command(mounts: bool) -> Command {
    let this = std::env::current_exe().expect("this program");
    if !mounts {
        return Command::new(this);
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg(this);
    unshare
}

fn open(dir: &Path, store: Store) -> (Logger, Guard) {
    let mut config = Config::default();
    config.direct.dir = dir.join("data");
    config.direct.store = store;
    config.logger.queue_bytes = ByteSize::mib(4);
    config.logger.max_record_bytes = ByteSize::kib(64);
    config.batch.max_age = Duration::from_millis(10);
    config.rotation.max_rows = 2_000;
    config.sqlite.busy_timeout = Duration::from_millis(200);
    Logger::open(&config).expect("the logger opens")
}

/// Numbered records, and how long the calls took.
#[derive(Default)]
struct Caller {
    next: u64,
    accepted: BTreeSet<u64>,
    nanos: Vec<u64>,
}

impl Caller {
    /// About 5,000 records a second for 20 ms.
    fn log(&mut self, logger: &Logger) {
        for _ in 0..100 {
            let inputs = serde_json::json!({"n": self.next, "text": "x".repeat(300)});
            let start = Instant::now();
            let outcome = logger.log_parts("wine", "1", &inputs, &0.5);
            self.nanos.push(start.elapsed().as_nanos() as u64);
            if matches!(outcome, Outcome::Accepted { .. }) {
                self.accepted.insert(self.next);
            }
            self.next += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    fn log_until(&mut self, logger: &Logger, what: &str, mut holds: impl FnMut(&Logger) -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds(logger) {
            assert!(Instant::now() < deadline, "{what}: not so after {LONG:?}; {:?} {:?}", logger.health(), logger.snapshot());
            self.log(logger);
        }
    }

    fn print_latency(&mut self, what: &str) {
        self.nanos.sort_unstable();
        let at = |quantile: f64| self.nanos[((self.nanos.len() - 1) as f64 * quantile) as usize] as f64 / 1e3;
        println!(
            "  {what}: log() p50 {:.1} us, p99 {:.1} us, max {:.1} us over {} calls",
            at(0.5),
            at(0.99),
            at(1.0),
            self.nanos.len()
        );
    }

    /// Everything accepted is stored, once, and the report balances.
    fn check(&self, dir: &Path, store: Store, logger: &Logger, guard: Guard) {
        assert!(logger.flush(LONG), "flushed; {:?}", logger.health());
        let report = guard.shutdown(LONG);
        assert_eq!(
            (report.accepted, report.delivered, report.on_disk),
            (self.accepted.len() as u64, report.accepted, 0),
            "{report:?}"
        );
        let data = dir.join("data");
        let rows = match store {
            Store::Sqlite => stored::sqlite(&data),
            Store::Parquet => stored::parquet(&data),
        };
        let numbers: BTreeSet<u64> = rows.iter().map(|row| row.inputs["n"].as_u64().expect("a number")).collect();
        assert_eq!(rows.len(), numbers.len(), "nothing is stored twice");
        assert_eq!(numbers, self.accepted, "what was accepted is what is stored");
        println!("  accepted {}, stored {}, dropped {:?}", report.accepted, rows.len(), report.dropped);
    }
}

fn dropped(logger: &Logger, reason: &str) -> u64 {
    logger.snapshot().dropped.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count)
}

fn full(dir: &Path, store: Store) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(dir).status().expect("mount starts");
    assert!(mounted.success(), "cannot mount a tmpfs");
    let (logger, guard) = open(dir, store);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));

    let filler = dir.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    caller.log_until(&logger, "drops are counted as no_space", |logger| dropped(logger, "no_space") > 1_000);
    let problem = logger.health().expect_err("it does not take records");
    assert!(problem.contains(dir.to_str().expect("UTF-8")) || problem.contains("space") || problem.contains("full"), "{problem}");
    caller.print_latency(&format!("{store:?}, disk full"));

    std::fs::remove_file(filler).expect("removed");
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.log(&logger);
    caller.check(dir, store, &logger, guard);
}

/// Files that are open stay writable; new ones cannot be made.
fn readonly(dir: &Path, store: Store) {
    let data = dir.join("data");
    std::fs::create_dir(&data).expect("a directory");
    if rustix::process::geteuid().is_root() {
        for path in [dir, &data] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        // SAFETY: setuid only changes this process's user, before any other thread runs.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0, "setuid");
    }
    let (logger, guard) = open(dir, store);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));

    set_modes(&data, 0o555);
    match store {
        // A new segment cannot be made once the open one is full, so the lanes fill up.
        Store::Parquet => caller.log_until(&logger, "drops are counted", |logger| dropped(logger, "sink_unavailable") > 1_000),
        Store::Sqlite => (0..50).for_each(|_| caller.log(&logger)),
    }
    caller.print_latency(&format!("{store:?}, directory read-only"));

    set_modes(&data, 0o755);
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.check(dir, store, &logger, guard);
}

/// Sets the mode of a directory and of all below it.
fn set_modes(dir: &Path, mode: u32) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("chmod");
    for entry in std::fs::read_dir(dir).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_modes(&path, mode);
        }
    }
}

fn locked(dir: &Path) {
    let (logger, guard) = open(dir, Store::Sqlite);
    let mut caller = Caller::default();
    caller.log(&logger);
    assert!(logger.flush(LONG));

    let mut holder = Command::new(std::env::current_exe().expect("this program"));
    let holder = holder.arg("hold").arg(dir.join("data/predictions.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().expect("the holder starts");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line, "held\n");

    caller.log_until(&logger, "the lock is noticed", |logger| logger.health().is_err_and(|why| why.contains("lock")));
    let before = caller.accepted.len();
    caller.log_until(&logger, "the spool takes the records", |logger| logger.snapshot().on_disk > 5_000);
    assert!(
        caller.accepted.len() > before + 1_000 && logger.snapshot().dropped.is_empty(),
        "nothing is dropped: the spool has it"
    );
    caller.print_latency("Sqlite, locked");

    drop(holder.stdin.take());
    assert!(holder.wait().expect("its end").success());
    caller.log_until(&logger, "it recovers", |logger| logger.health().is_ok());
    caller.check(dir, Store::Sqlite, &logger, guard);
}

/// Another process that holds the database's lock until its input ends.
fn hold(database: &Path) {
    let database = rusqlite::Connection::open(database).expect("the database opens");
    database.busy_timeout(LONG).expect("a timeout");
    database.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    println!("held");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("its end");
}

//! Processes that are killed, and the one that takes over what they left.

use crate::{LIMIT, audited, config, end, log, open};
use predlog::config::Store;
use predlog::{Logger, Outcome};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Logs 2,000 records to two models, says so, and waits for its end.
pub fn child(dir: &Path, store: &str) {
    let store = if store == "Sqlite" { Store::Sqlite } else { Store::Parquet };
    let mut config = config(dir, store);
    config.ledger.every = Duration::from_millis(20);
    let (logger, _guard) = Logger::open(&config).expect("the logger opens");
    for n in 0..2_000 {
        let model = if n % 2 == 0 { "wine" } else { "wine2" };
        assert!(matches!(log(&logger, model, 0, n), Outcome::Accepted { .. }));
        if n == 1_000 {
            // Some of it is stated, some not.
            let deadline = Instant::now() + LIMIT;
            while audited(dir).total.accepted == 0 {
                assert!(Instant::now() < deadline, "nothing is stated");
                std::thread::yield_now();
            }
        }
    }
    println!("logged");
    loop {
        std::thread::park();
    }
}

pub fn kill_child(dir: &Path, store: Store) {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this).arg("child").arg(dir).arg(format!("{store:?}")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "logged");
    child.kill().expect("kill -9");
    child.wait().expect("it is gone");
}

/// A start that takes over what dead processes left.
pub fn take_over(dir: &Path, store: Store) {
    let (logger, guard) = open(dir, store);
    let deadline = Instant::now() + LIMIT;
    let homes = || std::fs::read_dir(dir.join("writers")).unwrap().count();
    while homes() > 1 {
        assert!(Instant::now() < deadline, "what dead processes left is not taken over");
        std::thread::yield_now();
    }
    assert!(logger.flush(LIMIT));
    end(guard);
}

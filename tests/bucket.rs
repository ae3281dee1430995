//! kill -9 of the process that logs and uploads, while the bucket's server is killed, slow, cut off, or answers 500 and 503: when all has healed,
//! every accepted record is in the bucket once, and the local disk is back under its bound.
//!
//! This program is its own child: `child <dir> <store> <endpoint> <seen> <first>` logs, `drain <dir> <store> <endpoint>` delivers the rest.

mod crash;
mod stored;
mod support;

use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use predlog::Config;
use predlog::config::Store;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::faulty_bucket::FaultyBucket;
use support::readers::{ReadOptions, read_table};
use support::s3::Minio;

const KILLS: u64 = 12;
const RATE: u64 = 20_000;
/// Records that a child logs before its fault comes, when it starts in health: less than half a second's.
const IN_HEALTH: usize = 8_000;
const BUCKET: &str = "faults";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => {
            let first = arguments[6].parse().expect("a number");
            return crash::log_until_killed(&config(&arguments), RATE, Path::new(&arguments[5]), first);
        }
        Some("drain") => {
            let config = config(&arguments);
            return crash::drain(&config, || wait_for_upload(&config));
        }
        Some("--list") => return,
        _ => {}
    }
    for store in [Store::Sqlite, Store::Parquet] {
        faults(store);
        println!(
            "test {store:?}: every accepted record is in the bucket once after {KILLS} kills and its server's faults ... ok"
        );
    }
    println!("2 passed, 0 failed");
}

fn config(arguments: &[String]) -> Config {
    let mut config = Config::default();
    config.direct.dir = arguments[2].clone().into();
    config.direct.store = if arguments[3] == "Sqlite" { Store::Sqlite } else { Store::Parquet };
    // Many small uploads in a child's short life, and files and rows that go once they are uploaded.
    config.direct.retain = Some(Duration::from_secs(1));
    config.rotation.max_rows = 3_000;
    config.batch.max_age = Duration::from_millis(10);
    config.upload.url = Some(format!("s3://{BUCKET}/{}", arguments[3]));
    config.upload.endpoint = Some(arguments[4].clone());
    config.upload.every = Duration::from_secs(1);
    config.upload.max_rows = 5_000;
    config
}

/// Nothing waits any more, and what was uploaded is gone from the local disk.
fn wait_for_upload(config: &Config) {
    let dir = &config.direct.dir;
    // A kill may have come before a marker had its name; it stands for nothing, and goes after a day.
    let unnamed = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let all = || ["outbox", "export", "predictions"].into_iter().flat_map(|name| stored::files(&dir.join(name)));
    let files = || all().filter(|path| !unnamed(path)).count();
    // A row stays until it is uploaded, so none says that all are.
    let rows = || if config.direct.store == Store::Sqlite { stored::sqlite(dir).len() } else { 0 };
    let left = || files() + rows();
    support::process::wait_until("all is uploaded and the local files and rows are gone", Duration::from_secs(120), || {
        left() == 0
    });
}

fn faults(store: Store) {
    let mut faults = FaultyBucket::start(BUCKET);
    let work = tempfile::tempdir().expect("a temporary directory");
    let dir = work.path().join("data");
    let command = |word: &str, faults: &FaultyBucket| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(word).arg(&dir).arg(format!("{store:?}")).arg(faults.endpoint()).envs(faults.minio.env());
        command
    };
    let mut noted = Vec::new();
    for kill in 0..KILLS {
        let (seen, first) = (work.path().join(format!("seen-{kill}")), kill * crash::PER_CHILD);
        // Every other time the child starts in health, and the fault comes while it works.
        if kill % 2 == 0 {
            faults.next(kill);
        }
        let mut child = command("child", &faults).arg(&seen).arg(first.to_string()).spawn().expect("the child starts");
        if kill % 2 == 1 {
            crash::wait_until_noted(&mut child, &seen, IN_HEALTH);
            faults.next(kill);
        }
        faults.wait_until_met(kill);
        noted.push(crash::kill_at_random(child, seen, first, Duration::from_millis(1_500)));
        faults.heal(kill);
    }
    let status = command("drain", &faults).status().expect("the last start");
    assert!(status.success(), "{status}");
    let rows = objects(&faults.minio, &format!("{store:?}/predictions"));
    crash::assert_stored(&format!("{store:?} in the bucket"), &rows, &noted, 10_000);
    let options = ReadOptions { under: String::new(), env: faults.minio.env() };
    let read = read_table("duckdb", &format!("s3://{BUCKET}/{store:?}/predictions"), &options);
    assert_eq!(read.len(), rows.len(), "DuckDB reads the same rows");
}

fn objects(minio: &Minio, prefix: &str) -> Vec<stored::Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bucket = minio.store(BUCKET);
        let listed: Vec<_> = bucket.list(Some(&prefix.into())).try_collect().await.expect("the objects");
        let mut rows = Vec::new();
        for object in listed {
            let bytes = bucket.get(&object.location).await.expect("an object").bytes().await.expect("its bytes");
            rows.extend(stored::parquet_file(bytes.to_vec()));
        }
        rows
    })
}

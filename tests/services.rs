//! The services that other tests stand on do what those tests rely on.

#![cfg(feature = "upload")]

#[cfg(feature = "kafka")]
#[path = "services/kafka.rs"]
mod kafka;
#[cfg(feature = "nats")]
#[path = "services/nats.rs"]
mod nats;
#[cfg(feature = "kafka")]
#[path = "services/registry.rs"]
mod registry;
mod support;

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig, aws::AmazonS3, path::Path};
use serde_json::{Value, json};
use std::{fs, os::unix::process::ExitStatusExt, process::Command, sync::Arc, time::Duration};
use support::{
    fault_proxy::FaultProxy,
    process::{end_with_this_process, http, wait_until},
    readers::{READERS, ReadOptions, output, python, read_table},
    s3::{Minio, s3_builder},
    toxiproxy::Toxiproxy,
};

const BUCKET: &str = "tables";

async fn get(store: &AmazonS3, key: &str) -> Vec<u8> {
    store.get(&Path::from(key)).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn put(store: &AmazonS3, key: &str, bytes: &[u8]) -> Result<(), Error> {
    store.put(&Path::from(key), PutPayload::from(bytes.to_vec())).await.map(drop)
}

/// A client that reports the first error instead of trying again.
fn impatient(endpoint: &str) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    s3_builder(endpoint, BUCKET).with_retry(retry).build().unwrap()
}

#[test]
fn a_service_ends_with_the_process_that_started_it() {
    let mut service = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut guard = end_with_this_process(&service);
    // As the system does when a process ends.
    drop(guard.stdin.take());
    wait_until("the service is killed", Duration::from_secs(30), || service.try_wait().unwrap().is_some());
    assert_eq!(service.wait().unwrap().signal(), Some(9));
    guard.wait().unwrap();
}

#[tokio::test]
async fn minio_keeps_its_data_when_it_is_killed() {
    let mut minio = Minio::start();
    minio.create_bucket(BUCKET);
    put(&minio.store(BUCKET), "a/b", b"kept").await.unwrap();

    minio.stop();
    http("GET", minio.address(), "/", "").unwrap_err();
    minio.start_again();
    if minio.keeps_data() {
        assert_eq!(get(&minio.store(BUCKET), "a/b").await, b"kept");
    } else {
        eprintln!("skipped: moto keeps its data in memory");
    }
}

#[tokio::test]
async fn a_conditional_put_finds_what_is_there() {
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let store = minio.store(BUCKET);
    let key = Path::from("once");
    store.put_opts(&key, "first".into(), PutMode::Create.into()).await.unwrap();
    let second = store.put_opts(&key, "second".into(), PutMode::Create.into()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(get(&store, "once").await, b"first");
}

#[test]
fn toxiproxy_cuts_and_heals() {
    if !Toxiproxy::installed() {
        eprintln!("skipped: toxiproxy needs Go");
        return;
    }
    // Any HTTP server will do to be cut off from: toxiproxy is one.
    let toxiproxy = Toxiproxy::start();
    let upstream = Toxiproxy::start();
    let proxy = toxiproxy.proxy(upstream.address());
    let answers = || matches!(http("GET", proxy.address(), "/version", ""), Ok((200, _)));
    assert!(answers());

    proxy.disable();
    assert!(!answers());
    proxy.enable();
    assert!(answers());

    proxy.add_toxic(&json!({"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 0}}));
    assert!(!answers());
    proxy.remove_toxics();
    assert!(answers());
}

#[tokio::test]
async fn a_store_behind_toxiproxy_is_lost_and_found() {
    if !Toxiproxy::installed() {
        eprintln!("skipped: toxiproxy needs Go");
        return;
    }
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let toxiproxy = Toxiproxy::start();
    let proxy = toxiproxy.proxy(minio.address());
    let store = impatient(&proxy.endpoint());
    put(&store, "before", b"1").await.unwrap();
    proxy.disable();
    put(&store, "during", b"2").await.unwrap_err();
    proxy.enable();
    put(&store, "after", b"3").await.unwrap();
    assert_eq!(get(&store, "before").await, b"1");
}

#[tokio::test]
async fn the_fault_proxy_answers_in_the_place_of_the_server() {
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let proxy = FaultProxy::start(minio.address());
    let store = impatient(&proxy.endpoint());
    // More than the sockets' buffers hold, so that a proxy that does not read and write at once would hang.
    let big: Vec<u8> = (0..8_u32 << 20).map(|i| (i % 251) as u8).collect();
    put(&store, "big", &big).await.unwrap();
    assert!(get(&store, "big").await == big, "what came back through the proxy differs");
    assert_eq!((proxy.forwarded(), proxy.faults()), (2, 0));

    proxy.answer_with(503);
    let refused = put(&store, "refused", &big).await.unwrap_err();
    assert!(format!("{refused:?}").contains("503"), "{refused:?}");
    assert_eq!((proxy.forwarded(), proxy.faults()), (2, 1));

    proxy.forward_then_answer_with(500);
    let disowned = put(&store, "disowned", &big).await.unwrap_err();
    assert!(format!("{disowned:?}").contains("500"), "{disowned:?}");
    assert_eq!((proxy.forwarded(), proxy.faults()), (3, 2));

    proxy.pass();
    let missing = store.get(&Path::from("refused")).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "a refused put reached the server");
    assert!(get(&store, "disowned").await == big, "a put that was forwarded is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_tries_again_gets_through_once_the_fault_is_over() {
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let proxy = FaultProxy::start(minio.address());
    proxy.answer_with(503);
    let store = Arc::new(minio.store_through(&proxy.endpoint(), BUCKET));
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { put(&store, "late", b"there").await }
    });
    wait_until("the client tries again", Duration::from_secs(30), || proxy.faults() >= 2);
    proxy.pass();
    writing.await.unwrap().unwrap();
    assert_eq!(get(&store, "late").await, b"there");
}

/// What `make_table.py` writes: an escaped model name and one that looks like a number; a column, a field of a struct
/// and a field of a nested struct that only a later file has; doubles that JSON does not know.
fn expected_rows() -> Vec<Value> {
    let noon = 1_795_435_200_000_000_i64;
    let row = |seq: i64, model: &str, date: &str, inputs: Value, outputs: Value| {
        json!({
            "id": format!("r{seq}"), "timestamp": noon + seq, "model_name": model, "date": date, "inputs": inputs, "outputs": outputs,
            "latency_ms": null, "metadata": {"k": "v", "a": "b"}, "writer": "w-00", "seq": seq,
        })
    };
    let early = json!({"age": 41, "bmi": 0.1, "city": null});
    let late = json!({"age": 9_007_199_254_740_993_i64, "bmi": 1e-7, "city": "Zürich"});
    let mut rows = vec![
        row(0, "a/b", "2026-11-23", early.clone(), json!({"score": "NaN", "why": null})),
        row(1, "a/b", "2026-11-23", early.clone(), json!({"score": "Infinity", "why": null})),
        row(2, "a/b", "2026-11-24", late, json!({"score": "-Infinity", "why": {"top": "bmi"}})),
        row(3, "007", "2026-11-23", early, json!({"score": 1.0, "why": null})),
    ];
    rows[1]["metadata"] = Value::Null;
    rows[2]["latency_ms"] = json!(1.5);
    rows[3]["metadata"] = json!({});
    rows
}

fn make_table() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut script = python("tests/readers/make_table.py");
    script.arg(directory.path());
    output(script);
    directory
}

#[test]
fn every_reader_sees_one_table_in_a_directory() {
    let table = make_table();
    let path = table.path().to_str().unwrap();
    for reader in READERS {
        assert_eq!(read_table(reader, path, &ReadOptions::default()), expected_rows(), "{reader}");
        // With this one model alone a reader that guesses would make the number 7 of its name.
        let one = ReadOptions { under: "model_name=007".into(), ..ReadOptions::default() };
        let rows = read_table(reader, path, &one);
        assert_eq!(rows.len(), 1, "{reader}");
        assert_eq!(rows[0]["model_name"], "007", "{reader}");
    }
}

#[tokio::test]
async fn every_reader_sees_one_table_in_a_bucket() {
    let minio = Minio::start();
    minio.create_bucket(BUCKET);
    let store = minio.store(BUCKET);
    let table = make_table();
    let mut folders = vec![table.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            // parse() takes the key as it is; from() would escape the % of an escaped name once more.
            let key = Path::parse(entry.strip_prefix(table.path()).unwrap().to_str().unwrap()).unwrap();
            let key = Path::parse(format!("some/prefix/{key}")).unwrap();
            store.put(&key, fs::read(&entry).unwrap().into()).await.unwrap();
        }
    }
    let options = ReadOptions { env: minio.env(), ..ReadOptions::default() };
    for reader in READERS {
        assert_eq!(read_table(reader, "s3://tables/some/prefix", &options), expected_rows(), "{reader}");
    }
}

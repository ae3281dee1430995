//! `predlog replay`.

use super::*;
use support::nats::{Nats, Stored};

/// Text that does not compress: the broker looks at the compressed size.
fn noise(len: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.alphanumeric()).collect()
}

/// Logs twelve records, of which the broker does not take three.
fn log_small_and_large(logger: &Logger, len: usize) {
    for n in 0..12 {
        let text = if n < 3 { noise(len) } else { "small".to_owned() };
        assert!(matches!(logger.log_parts("wine", "1", &json!({"n": n, "text": text}), &1), Outcome::Accepted { .. }));
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    assert_eq!(logger.snapshot().unstorable, 3);
}

fn assert_all_are_there<'a>(lines: impl IntoIterator<Item = &'a [u8]>) {
    let mut numbers: Vec<u64> = lines.into_iter().map(|line| value(line)["inputs"]["n"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
}

#[test]
fn dead_letters_are_replayed_once_the_topic_takes_them() {
    let (dir, topic) = (tempfile::tempdir().unwrap(), new_topic(&[("max.message.bytes", "20000")]));
    let mut config = kafka(dir.path(), &topic);
    config.kafka.properties.0.insert("batch.num.messages".to_owned(), "1".to_owned());
    let (logger, guard) = Logger::open(&config).unwrap();
    log_small_and_large(&logger, 60_000);
    // The server goes on meanwhile.
    let toml = format!("mode = \"kafka\"\n{}[kafka.properties]\n\"batch.num.messages\" = 1\n", toml(dir.path(), &topic));
    let replay = |args: &[&str]| predlog(dir.path(), &toml, &[&["replay"], args].concat());
    let (code, said, errors) = replay(&["--dry-run"]);
    assert_eq!((code, said.as_str()), (Some(1), "sent=0 refused_again=0 left=3 torn_files=0\n"), "{errors}");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(1), "sent=0 refused_again=3 left=0 torn_files=0\n"), "{errors}");
    broker().set_topic(&topic, "max.message.bytes", "1000000");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(0), "sent=3 refused_again=0 left=0 torn_files=0\n"), "{errors}");
    let (code, said, errors) = replay(&[]);
    assert_eq!((code, said.as_str()), (Some(0), "sent=0 refused_again=0 left=0 torn_files=0\n"), "{errors}");
    guard.shutdown(LONG);
    assert_all_are_there(lines(&topic, 12).iter().map(Vec::as_slice));
}

#[test]
fn dead_letters_of_nats_are_replayed_once_the_server_takes_them() {
    let (mut nats, dir) = (Nats::start_with("max_payload: 4096"), tempfile::tempdir().unwrap());
    let config = Config { mode: Mode::Nats, nats: nats.settings("s", dir.path()), ..Config::default() };
    let (logger, guard) = Logger::open(&config).unwrap();
    log_small_and_large(&logger, 10_000);
    guard.shutdown(LONG);
    let (url, fallback) = (nats.url(), dir.path());
    let toml = format!(
        "mode = \"nats\"\n[nats]\nservers = \"{url}\"\nsubject = \"s.{{model_name}}\"\nstream = \"s\"\n[nats.fallback]\ndir = {fallback:?}\n"
    );
    let replay = || predlog(dir.path(), &toml, &["replay"]);
    let (code, said, errors) = replay();
    assert_eq!((code, said.as_str()), (Some(1), "sent=0 refused_again=3 left=0 torn_files=0\n"), "{errors}");
    nats.restart_with("");
    let (code, said, errors) = replay();
    assert_eq!((code, said.as_str()), (Some(0), "sent=3 refused_again=0 left=0 torn_files=0\n"), "{errors}");
    assert_all_are_there(nats.stored("s").iter().flat_map(Stored::lines));
}

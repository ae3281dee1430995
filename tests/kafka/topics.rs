//! A topic for each model: which, and what if it is not there.

use super::*;
use std::collections::BTreeSet;
use support::process::wait_until;

#[test]
fn a_template_is_a_topic_for_each_model_which_is_created_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "made-{model_name}");
    (config.kafka.create_topics, config.kafka.partitions) = (true, 2);
    // Kafka makes no topic `made-a.b` where there is one `made-a_b`.
    log_all(&config, &["wine", "../a b", "a_b", "a.b"], 50);
    for (topic, model) in [("made-wine", "wine"), ("made-_2E_2E_2Fa_20b", "../a b"), ("made-a_b", "a_b"), ("made-a_2Eb", "a.b")] {
        let messages = read_topic(&broker().bootstrap(), topic, 50);
        assert!(messages.len() == 50 && messages.iter().all(|message| value(message)["model_name"] == model), "{topic}");
    }
}

/// Anybody who posts predictions chooses the names of models.
#[test]
fn a_model_without_a_topic_holds_up_no_other_and_is_replayed_when_it_has_one() {
    let dir = tempfile::tempdir().unwrap();
    broker().create_topic("own-wine", 2);
    let mut config = config(dir.path(), "own-{model_name}");
    config.kafka.deadline = Duration::from_secs(1);
    let (logger, guard) = Logger::open(&config).unwrap();
    let log = |model: &str, n: u64| assert!(matches!(logger.log_parts(model, "1", &n, &1), Outcome::Accepted { .. }));
    for n in 0..500 {
        log("wine", n);
        log("ghost", n);
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    // It is known by now, and costs nothing more.
    for n in 500..1_000 {
        log("wine", n);
        log("ghost", n);
    }
    assert!(logger.flush(LONG), "{:?}", logger.health());
    let numbers = |topic: &str, at_least: usize| -> BTreeSet<u64> {
        let messages = read_topic(&broker().bootstrap(), topic, at_least);
        messages.iter().map(|message| value(message)["inputs"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("own-wine", 1_000), (0..1_000).collect());
    let letters = dead_letters(dir.path());
    assert_eq!((letters.len(), logger.snapshot().unstorable), (1_000, 1_000));
    let told = "topic=own-ghost does not exist: create it, or set kafka.create_topics = true";
    assert!(letters.iter().all(|letter| letter["topic"] == "own-ghost" && letter["reason"] == told), "{:?}", letters[0]);

    broker().create_topic("own-ghost", 2);
    let mut next = 1_000;
    wait_until("its records are sent to it", LONG, || {
        log("ghost", next);
        next += 1;
        assert!(logger.flush(LONG), "{:?}", logger.health());
        !read_topic(&broker().bootstrap(), "own-ghost", 0).is_empty()
    });
    guard.shutdown(LONG);
    let toml = format!("mode = \"kafka\"\n[kafka]\nbrokers = \"{}\"\ntopic = \"own-{{model_name}}\"", broker().bootstrap());
    let (code, said) = predlog(dir.path(), "replay", &format!("{toml}\n[kafka.fallback]\ndir = {:?}", dir.path()));
    assert!(code && said.contains("refused_again=0 left=0"), "{said}");
    assert_eq!(numbers("own-ghost", next as usize), (0..next).collect());
}

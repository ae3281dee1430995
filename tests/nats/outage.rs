//! The server stops, dies, is cut off, or its stream is full or gone: what was accepted meanwhile is stored when it is over.

use super::*;
use async_nats::jetstream::stream::DiscardPolicy;
use support::toxiproxy::Toxiproxy;

/// Logs for `time` at about 10,000 a second, and calls `trouble` with the time that has passed; what was accepted.
fn load(logger: &Logger, time: Duration, mut trouble: impl FnMut(Duration)) -> u64 {
    let start = Instant::now();
    let mut accepted = 0;
    while start.elapsed() < time {
        for _ in 0..100 {
            assert!(log(logger, accepted), "dropped: {:?}", logger.health());
            accepted += 1;
        }
        trouble(start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    accepted
}

#[test]
fn a_server_that_is_stopped_under_load_loses_nothing() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let (logger, guard) = open(nats.settings("s", dir.path()));
    let (mut stopped, mut went_on) = (false, false);
    let accepted = load(&logger, Duration::from_secs(6), |at| {
        if !stopped && at > Duration::from_secs(1) {
            nats.pause();
            stopped = true;
        }
        if !went_on && at > Duration::from_secs(4) {
            assert!(logger.health().is_err(), "a sink without acknowledgements says so");
            nats.resume();
            went_on = true;
        }
    });
    every_record_is_stored_once(&nats, &logger, guard, accepted);
}

#[test]
fn a_server_that_is_killed_under_load_loses_nothing() {
    let (mut nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let (logger, guard) = open(nats.settings("s", dir.path()));
    let mut done = 0;
    let accepted = load(&logger, Duration::from_secs(9), |at| {
        // Each time it has a part of a second's messages, which it has neither stored nor refused, when it dies.
        let (time, step) = (3_000 * (done / 3) + [1_000, 1_400, 2_000][done % 3], done % 3);
        if done < 9 && at > Duration::from_millis(time as u64) {
            match step {
                0 => nats.pause(),
                1 => nats.kill(),
                _ => nats.restart(),
            }
            done += 1;
        }
    });
    assert_eq!(done, 9, "it was killed three times");
    every_record_is_stored_once(&nats, &logger, guard, accepted);
}

#[test]
fn a_server_that_is_away_at_the_start_gets_all_when_it_comes() {
    let (mut nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    nats.kill();
    let (logger, guard) = open(nats.settings("s", dir.path()));
    assert!((0..1_000).all(|n| log(&logger, n)));
    wait_until("the sink says that it is down", LIMIT, || logger.health().is_err());
    nats.restart();
    every_record_is_stored_once(&nats, &logger, guard, 1_000);
}

#[test]
fn a_server_that_is_cut_off_or_slow_under_load_loses_nothing() {
    let (nats, dir, toxiproxy) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"), Toxiproxy::start());
    let proxy = toxiproxy.proxy(nats.address());
    let servers = Servers(format!("nats://{}", proxy.address()));
    let (logger, guard) = open(NatsSettings { servers, ..nats.settings("s", dir.path()) });
    // One KB a second is as good as nothing.
    let slow = json!({"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 1}});
    let steps: [(u64, &dyn Fn()); 4] =
        [(1, &|| proxy.disable()), (3, &|| proxy.enable()), (5, &|| proxy.add_toxic(&slow)), (8, &|| proxy.remove_toxics())];
    let (mut done, mut down) = (0, 0);
    let accepted = load(&logger, Duration::from_secs(9), |at| {
        if let Some((from, step)) = steps.get(done)
            && at > Duration::from_secs(*from)
        {
            down += u32::from(logger.health().is_err());
            step();
            done += 1;
        }
    });
    assert_eq!((done, down), (4, 2), "each trouble was seen, and nothing else");
    every_record_is_stored_once(&nats, &logger, guard, accepted);
}

/// What the stream had is gone with it, so it is read before.
#[test]
fn a_stream_that_is_deleted_and_made_again_gets_all_that_came_since() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let make = || nats.create_stream("s", stream::Config { subjects: vec!["s.*".to_owned()], ..stream::Config::default() });
    make();
    let (logger, guard) = open(NatsSettings { create_stream: false, ..nats.settings("s", dir.path()) });
    let log = |numbers: std::ops::Range<u64>| assert!(numbers.into_iter().all(|n| log(&logger, n)));
    log(0..10_000);
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    assert_eq!(numbers(&nats.stored("s")), (0..10_000).map(|n| (n, 1)).collect());
    nats.delete_stream("s");
    log(10_000..15_000);
    wait_until("it is said", LIMIT, || {
        logger.health().is_err_and(|why| why.contains("create the stream") || why.contains("create it"))
    });
    log(15_000..20_000);
    make();
    assert!(logger.flush(LIMIT), "{:?}", logger.health());
    assert_eq!(guard.shutdown(LIMIT).delivered, 20_000);
    assert_eq!(numbers(&nats.stored("s")), (10_000..20_000).map(|n| (n, 1)).collect());
}

#[test]
fn a_stream_that_is_full_gets_all_when_it_has_room() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let config = |max_bytes| stream::Config {
        name: "s".to_owned(),
        subjects: vec!["s.*".to_owned()],
        discard: DiscardPolicy::New,
        max_bytes,
        ..stream::Config::default()
    };
    nats.create_stream("s", config(1 << 20));
    let (logger, guard) = open(nats.settings("s", dir.path()));
    let mut full = false;
    let accepted = load(&logger, Duration::from_secs(5), |_| {
        let is_full = || logger.health().is_err_and(|why| why.contains("maximum bytes exceeded"));
        full = full || is_full();
    });
    assert!(full, "it is said: {:?}", logger.health());
    nats.update_stream(config(-1));
    every_record_is_stored_once(&nats, &logger, guard, accepted);
}

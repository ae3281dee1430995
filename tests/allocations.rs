//! `log()` asks for no memory once a thread has logged before: proved by counting what the allocator is asked for.

use predlog::sink::discard::DiscardSink;
use predlog::{Durability, Logger, LoggerSettings, Outcome, Prediction};
use serde::Serialize;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local!(static ASKED: Cell<u64> = const { Cell::new(0) });

fn count() {
    // A thread that is being torn down has no counter any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Serialize)]
struct Features<'a> {
    age: u32,
    income: f64,
    segment: &'a str,
    active: bool,
    history: [f32; 4],
    note: Option<&'a str>,
}

#[test]
fn a_thread_that_has_logged_before_asks_for_no_memory() {
    for durability in [Durability::Memory, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let settings = LoggerSettings { durability, ..LoggerSettings::default() };
        let (logger, guard) = Logger::builder(settings).dir(dir.path()).sink(Box::new(DiscardSink::default())).open().unwrap();
        let features = |n: u32| Features {
            age: n,
            income: f64::from(n) / 3.0,
            segment: "a \"quoted\" name",
            active: true,
            history: [0.1, f32::NAN, 2.5, -7.0],
            note: None,
        };
        let log = |n: u32| {
            let (inputs, outputs) = (features(n), [f64::from(n)]);
            let prediction =
                Prediction::new("churn", "v2", &inputs, &outputs).latency_ms(1.5).request_id("r").metadata(&[("k", "v")]);
            assert!(matches!(logger.log(prediction), Outcome::Accepted { .. }));
        };
        (0..1_000).for_each(log);
        let before = ASKED.get();
        (0..50_000).for_each(log);
        assert_eq!(ASKED.get() - before, 0, "allocations in 50,000 calls with durability={durability:?}");
        assert_eq!(guard.shutdown(Duration::from_secs(30)).delivered, 51_000);
    }
}

#[test]
fn the_counter_counts() {
    let before = ASKED.get();
    drop(std::hint::black_box(vec![1, 2, 3]));
    assert_eq!(ASKED.get() - before, 1);
}

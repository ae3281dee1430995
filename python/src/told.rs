//! What predlog itself has to tell (brokers that are away, records that a broker refuses, a database set aside), in Python's `logging`: by loggers such as
//! `predlog.sink.kafka`, from INFO on.
//!
//! No thread of predlog's waits for Python: they put messages into a queue, and a thread that is started with the first of them gives them to Python. It is stopped before
//! the interpreter ends. Where Python's threads are greenlets (gevent, eventlet), whose locks are not for other threads, the next `log()` gives them.

use crate::forks::{ATTENTION, MESSAGES};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, TryLockError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Messages that wait for Python, at most; how many more there were is told with the next.
const MOST: usize = 1000;

struct Message {
    level: Level,
    target: &'static str,
    text: String,
}

struct Queue {
    messages: VecDeque<Message>,
    lost: u64,
    /// The process whose thread takes them: a forked child has none of its parent's.
    process: u32,
    /// The interpreter ends.
    stopped: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { messages: VecDeque::new(), lost: 0, process: 0, stopped: false });
static CHANGED: Condvar = Condvar::new();

/// Python's threads are greenlets.
static GREEN: AtomicBool = AtomicBool::new(false);

/// Has predlog's messages given to Python from now on. Where something else of the process takes them already, it stays so.
pub(crate) fn listen(py: Python<'_>) {
    static ONCE: Once = Once::new();
    // They have put functions of their own in the place of the interpreter's.
    let start = py.import("_thread").and_then(|thread| thread.getattr("start_new_thread"));
    let green = start.is_ok_and(|start| !start.is_instance_of::<PyCFunction>());
    GREEN.store(green, Ordering::Relaxed);
    ONCE.call_once(|| _ = tracing::subscriber::set_global_default(Listener));
}

/// Gives Python what is left, and nothing after that. Waits for the thread up to a second.
pub(crate) fn stop(py: Python<'_>) {
    let Some(mut queue) = lock() else { return };
    queue.stopped = true;
    let running = queue.process == std::process::id();
    drop(queue);
    CHANGED.notify_all();
    let until = Instant::now() + Duration::from_secs(1);
    while running && Instant::now() < until && lock().is_none_or(|queue| queue.process != 0) {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
    let rest = lock().map(|mut queue| std::mem::take(&mut queue.messages)).unwrap_or_default();
    rest.iter().for_each(|message| give(py, message));
}

/// Gives Python what waits for a call, in a process of greenlets.
pub(crate) fn give_waiting(py: Python<'_>) {
    ATTENTION.fetch_and(!MESSAGES, Ordering::Relaxed);
    let waiting = lock().map(|mut queue| std::mem::take(&mut queue.messages)).unwrap_or_default();
    waiting.iter().for_each(|message| give(py, message));
}

/// The queue is held for a moment only. In a forked child it may stay locked by a thread that is not there: then nothing is told.
fn lock() -> Option<MutexGuard<'static, Queue>> {
    for _ in 0..10 {
        match QUEUE.try_lock() {
            Ok(queue) => return Some(queue),
            Err(TryLockError::Poisoned(queue)) => return Some(queue.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

fn add(message: Message) {
    let Some(mut queue) = lock().filter(|queue| !queue.stopped) else { return };
    let process = std::process::id();
    if queue.process != process && queue.process != 0 {
        // Its parent's, which tells them itself.
        queue.messages.clear();
    }
    if queue.messages.len() >= MOST {
        queue.lost += 1;
        return;
    }
    queue.messages.push_back(message);
    if GREEN.load(Ordering::Relaxed) {
        ATTENTION.fetch_or(MESSAGES, Ordering::Relaxed);
        return;
    }
    if queue.process != process {
        // Where no thread can be had, the next message, or the end, tells this one as well.
        queue.process = if predlog::thread::spawn("predlog-log", run).is_ok() { process } else { 0 };
    }
    drop(queue);
    CHANGED.notify_one();
}

fn run() {
    let Ok(mut queue) = QUEUE.lock() else { return };
    while !queue.stopped {
        if queue.messages.is_empty() {
            let Ok(woken) = CHANGED.wait(queue) else { return };
            queue = woken;
            continue;
        }
        let (messages, lost) = (std::mem::take(&mut queue.messages), std::mem::take(&mut queue.lost));
        drop(queue);
        _ = Python::try_attach(|py| {
            messages.iter().for_each(|message| give(py, message));
            if lost > 0 {
                let text = format!("{lost} more messages were lost: too many at once");
                give(py, &Message { level: Level::WARN, target: "predlog", text });
            }
        });
        let Ok(locked) = QUEUE.lock() else { return };
        queue = locked;
    }
    queue.process = 0;
}

/// Whatever the handlers of Python's log raise is nothing to predlog.
fn give(py: Python<'_>, message: &Message) {
    let level = match message.level {
        Level::ERROR => 40,
        Level::WARN => 30,
        _ => 20,
    };
    let name = message.target.replace("::", ".");
    let logger = || py.import("logging")?.call_method1("getLogger", (name,));
    _ = logger().and_then(|logger| logger.call_method1("log", (level, "%s", &message.text)));
}

/// Takes predlog's own events; spans are nothing here.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("predlog")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        add(Message { level: *metadata.level(), target: metadata.target(), text: text.message + &text.fields });
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message, and ` name=value` for each field.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text does not fail.
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

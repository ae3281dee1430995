//! The process's ends: before a fork loggers end, and are opened again on both sides by their next `log()`; with the interpreter, calls end too.

use crate::told;
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicIsize, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A fork waits so long for what is still to be delivered; the rest is on disk, and the next logger delivers it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Forks that are under way: no logger may be opened, as its thread would not be there in the child.
pub(crate) static FORKING: AtomicU32 = AtomicU32::new(0);
/// Loggers that are being opened, detached from Python: a fork waits for them. It is changed, and compared with [`FORKING`], while attached.
pub(crate) static OPENING: AtomicU32 = AtomicU32::new(0);
/// The same of loggers that are being ended.
pub(crate) static ENDING: AtomicU32 = AtomicU32::new(0);
/// The thread that forks, 0 for none.
pub(crate) static FORKER: AtomicU64 = AtomicU64::new(0);

/// Marks a step of a fork:
/// - `begins`: from here on no logger is opened. Waits for those that are being opened: they are open then, and known.
/// - `ready`: all loggers that are known were ended. Waits for those that other threads are ending.
/// - `parent`, `child`: it is over.
///
/// Without these waits the child would keep files open and have what other threads had locked, and not these threads.
#[pyfunction]
pub(crate) fn forking(py: Python<'_>, step: &str) {
    match step {
        "begins" => {
            FORKING.fetch_add(1, Ordering::AcqRel);
            FORKER.store(this_thread(), Ordering::Release);
            wait_for(py, &OPENING);
        }
        "ready" => wait_for(py, &ENDING),
        // Its begin was not seen where this module is imported meanwhile.
        "parent" => {
            _ = FORKING.fetch_update(Ordering::AcqRel, Ordering::Acquire, |forks| forks.checked_sub(1));
            FORKER.store(0, Ordering::Release);
        }
        _ => {
            ATTENTION.fetch_and(!FORKED, Ordering::Relaxed);
            predlog::Logger::after_fork_in_child();
            FORKER.store(0, Ordering::Release);
            CALLS.store(0, Ordering::Relaxed);
            for threads in [&FORKING, &OPENING, &ENDING] {
                threads.store(0, Ordering::Release);
            }
        }
    }
}

/// Has forks without Python's hooks noticed, as uWSGI does them in C: the loggers that are open in the child are its parent's.
pub(crate) fn watch() {
    #[cfg(unix)]
    {
        extern "C" fn in_child() {
            ATTENTION.fetch_or(FORKED, Ordering::Relaxed);
        }
        // SAFETY: the function does what may be done between a fork and whatever comes next. Python's own hooks, where they run, come after it.
        _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

#[inline]
pub(crate) fn forked() -> bool {
    ATTENTION.load(Ordering::Relaxed) & FORKED != 0
}

/// In the child of a fork without hooks does what they would have done.
#[inline]
pub(crate) fn catch_up(py: Python<'_>) {
    if forked() {
        catch_up_now(py);
    }
}

#[cold]
#[inline(never)]
fn catch_up_now(py: Python<'_>) {
    let hook = || py.import("predlog._lifecycle")?.call_method0("_after_fork_in_child");
    if let Err(error) = hook() {
        error.write_unraisable(py, None);
    }
    ATTENTION.fetch_and(!FORKED, Ordering::Relaxed);
}

/// Waits for other threads, for a while.
fn wait_for(py: Python<'_>, threads: &AtomicU32) {
    let until = Instant::now() + DEADLINE;
    while threads.load(Ordering::Acquire) > 0 && Instant::now() < until {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
}

/// A number for this thread, from 1.
pub(crate) fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// Calls of `log()` that are under way.
static CALLS: AtomicIsize = AtomicIsize::new(0);
/// What a call of `log()` looks at first: nothing, but for the bits below.
pub(crate) static ATTENTION: AtomicU8 = AtomicU8::new(0);
/// No more calls are taken.
pub(crate) const SETTLED: u8 = 1;
/// Messages wait for a call that gives them to Python, see `told.rs`.
pub(crate) const MESSAGES: u8 = 2;
/// This process was forked, and no hook of Python's has run.
const FORKED: u8 = 4;

/// Threads that are attached count one after the other. Without Python's lock they may miss one, for which the end waits a second.
#[inline]
pub(crate) fn under_way(calls: isize) {
    CALLS.store(CALLS.load(Ordering::Relaxed) + calls, Ordering::Relaxed);
}

/// From here on `log()` answers that its logger is closed, and runs none of its values' code. Waits up to `timeout` seconds for calls that are under way.
/// The end of a subinterpreter is not the process's.
#[pyfunction]
pub(crate) fn settle(py: Python<'_>, timeout: f64) {
    // SAFETY: this thread is attached.
    if unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } != 0 {
        return;
    }
    told::stop(py);
    ATTENTION.fetch_or(SETTLED, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 60.0));
    while CALLS.load(Ordering::Relaxed) > 0 && Instant::now() < until {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
}

//! How callers and the worker talk, apart from the lanes: wake-ups, flushes, durability, the end.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    /// For the worker.
    wake: Condvar,
    /// For callers who wait for a flush, for durability or for room.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    flush_asked: u64,
    flush_done: u64,
    /// Accepted counts of each lane for which `fsync` holds.
    durable: Vec<u64>,
    shutdown: Option<Instant>,
    problem: Option<String>,
    ended: bool,
}

/// What the worker is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The latest flush, when it is not done.
    pub(super) flush: Option<u64>,
    pub(super) shutdown: Option<Instant>,
}

impl Control {
    /// Wakes the worker. Called when a buffer was filled, never for a single record.
    pub(super) fn wake(&self) {
        self.state.lock().woken = true;
        self.wake.notify_one();
    }

    /// The worker sleeps, for `at_most`.
    pub(super) fn sleep(&self, at_most: Duration) {
        let mut state = self.state.lock();
        if !state.woken {
            self.wake.wait_for(&mut state, at_most);
        }
        state.woken = false;
    }

    pub(super) fn asked(&self) -> Asked {
        let state = self.state.lock();
        Asked { flush: (state.flush_asked > state.flush_done).then_some(state.flush_asked), shutdown: state.shutdown }
    }

    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        state.flush_asked += 1;
        let ticket = state.flush_asked;
        state.woken = true;
        self.wake.notify_one();
        while state.flush_done < ticket {
            if state.ended || self.progress.wait_until(&mut state, deadline).timed_out() {
                return state.flush_done >= ticket;
            }
        }
        true
    }

    pub(super) fn flushed(&self, ticket: u64) {
        let mut state = self.state.lock();
        state.flush_done = state.flush_done.max(ticket);
        self.progress.notify_all();
    }

    pub(super) fn wait_durable(&self, accepted: &[u64], deadline: Instant) -> bool {
        let mut state = self.state.lock();
        loop {
            if accepted.iter().zip(&state.durable).all(|(accepted, durable)| durable >= accepted) && !state.durable.is_empty() {
                return true;
            }
            state.woken = true;
            self.wake.notify_one();
            if state.ended || self.progress.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
    }

    pub(super) fn durable(&self, accepted: Vec<u64>) {
        self.state.lock().durable = accepted;
        self.progress.notify_all();
    }

    /// Buffers are free again.
    pub(super) fn released(&self) {
        self.progress.notify_all();
    }

    /// Waits for a release of buffers, and at most a millisecond: one may have come just before. `false` when `deadline` has passed.
    pub(super) fn wait_for_room(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        let soon = deadline.min(Instant::now() + Duration::from_millis(1));
        self.progress.wait_until(&mut state, soon);
        Instant::now() < deadline && !state.ended
    }

    pub(super) fn shut_down(&self, deadline: Instant) {
        let mut state = self.state.lock();
        state.shutdown = Some(deadline);
        state.woken = true;
        self.wake.notify_one();
    }

    /// The worker is gone: nobody waits for it any more.
    pub(super) fn ended(&self) {
        self.state.lock().ended = true;
        self.progress.notify_all();
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.state.lock().problem = problem;
    }
}

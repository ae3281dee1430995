//! What a failure of the sink or of the spool changes, and what the end of it does.

use super::{RETRY_MAX, RETRY_MIN, Worker};
use crate::clock::Now;
use crate::logger::Cause;
use crate::sink::{SinkError, SinkErrorKind};
use std::sync::atomic::Ordering;

impl Worker {
    pub(super) fn failed(&mut self, error: SinkError, now: Now) {
        self.shared.stats.sink_failures.fetch_add(1, Ordering::Relaxed);
        self.shared.stats.sink_up.store(0, Ordering::Release);
        let cause = if error.kind == SinkErrorKind::NoSpace { Cause::NO_SPACE } else { Cause::SINK };
        self.shared.cause.store(cause, Ordering::Relaxed);
        if self.down.is_none() {
            tracing::error!(%error, retry_in = ?self.retry_wait, "predictions cannot be stored now; they are kept and tried again");
        }
        self.shared.control.set_problem(Some(error.to_string()));
        self.down = Some(error);
        self.retry_at = now.monotonic + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
    }

    /// The spool's failure says nothing of a sink that is down, and must not put off its next try.
    pub(super) fn spool_failed(&mut self, error: SinkError, now: Now) {
        if self.down.is_none() {
            return self.failed(error, now);
        }
        self.shared.stats.sink_failures.fetch_add(1, Ordering::Relaxed);
        if error.kind == SinkErrorKind::NoSpace {
            self.shared.cause.store(Cause::NO_SPACE, Ordering::Relaxed);
        }
        self.shared.control.set_problem(Some(error.to_string()));
    }

    pub(super) fn recovered(&mut self, now: Now) {
        if self.down.take().is_some() {
            tracing::info!("predictions are stored again");
            self.shared.stats.sink_up.store(1, Ordering::Release);
            self.shared.cause.store(Cause::LOAD, Ordering::Relaxed);
            self.shared.control.set_problem(None);
            self.retry_wait = RETRY_MIN;
            self.retry_at = now.monotonic;
            self.pace.restart(now.monotonic);
        }
    }
}

//! What a broker said last when it was asked in the background, so that the worker never waits for it.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// An answer older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(3);

/// A question that is asked again and again.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    state: Mutex<State>,
    given: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asking: bool,
    answer: Option<(Instant, Result<(), String>)>,
}

impl Answer {
    /// The answer, if it comes within `patience`; one that comes later is given to the next call. `ask` asks, unless that is under way.
    pub(crate) fn within(&self, patience: Duration, ask: impl FnOnce()) -> Option<Result<(), String>> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        let stale = state.answer.take_if(|(at, _)| at.elapsed() > FRESH);
        drop(stale);
        if state.answer.is_none() && !state.asking {
            state.asking = true;
            ask();
        }
        while state.answer.is_none() && !self.given.wait_until(&mut state, deadline).timed_out() {}
        state.answer.take().map(|(_, answer)| answer)
    }

    /// Answers who asked.
    pub(crate) fn give(&self, answer: Result<(), String>) {
        let mut state = self.state.lock();
        state.asking = false;
        state.answer = Some((Instant::now(), answer));
        self.given.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_the_next_calls_and_nothing_is_asked_twice() {
        let answer = Answer::default();
        let mut asked = 0;
        assert_eq!(answer.within(Duration::ZERO, || asked += 1), None);
        assert_eq!(answer.within(Duration::ZERO, || asked += 1), None);
        answer.give(Err("away".to_owned()));
        assert_eq!(answer.within(Duration::ZERO, || asked += 1), Some(Err("away".to_owned())));
        assert_eq!(asked, 1);
        assert_eq!(answer.within(Duration::ZERO, || asked += 1), None);
        assert_eq!(asked, 2, "an answer is given once");
    }
}

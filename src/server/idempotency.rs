//! Answers by `Idempotency-Key`: a client that did not hear the answer asks again, and nothing is logged twice.
//! After draft-ietf-httpapi-idempotency-key-header: 409 while the first is worked on, 422 for a key with another body.

use super::error::Problem;
use axum::http::StatusCode;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest key, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 256;
/// Bytes of answers that are remembered; past it the oldest are forgotten.
const MAX_BYTES: usize = 64 << 20;

/// What the request with this key had in it.
pub(super) type Fingerprint = [u8; 32];

/// An answer that says that rows were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) status: StatusCode,
    pub(super) json: Bytes,
    /// There was no room from this row on: a repeated request goes on here.
    pub(super) stopped_at: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Idempotency {
    window: Duration,
    capacity: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    slots: HashMap<String, Slot>,
    /// Remembered answers, the oldest first.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    fingerprint: Fingerprint,
    /// `None` while the first request is worked on.
    answer: Option<Remembered>,
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Turn {
    /// Work on it.
    First(Claim),
    /// It was answered before.
    Replay(Remembered),
}

/// The right to work on a key. Dropped without an answer, the key is as it was before.
#[derive(Debug)]
pub(super) struct Claim {
    of: Arc<Idempotency>,
    key: String,
    /// The same request came before, and was answered so, when there was room for some of its rows.
    before: Option<(Instant, Remembered)>,
}

impl Idempotency {
    pub(super) fn new(window: Duration, capacity: usize) -> Self {
        Idempotency { window, capacity, known: Mutex::default() }
    }

    /// Asks for a key.
    pub(super) fn claim(self: &Arc<Self>, key: &str, fingerprint: Fingerprint, now: Instant) -> Result<Turn, Problem> {
        let mut known = self.known.lock();
        known.forget(now, self.window, self.capacity);
        match known.slots.get(key) {
            Some(Slot { answer: Some(answer), fingerprint: before }) if answer.stopped_at.is_some() => {
                // With another body it is the rest of the rows, or another try altogether: the key is free for both.
                let before = (*before == fingerprint).then(|| answer.clone());
                let at = known.take(key).unwrap_or(now);
                Ok(Turn::First(self.begin(&mut known, key, fingerprint, before.map(|before| (at, before)))))
            }
            Some(slot) if slot.fingerprint != fingerprint => Err(Problem::KeyReused(format!(
                "idempotency-key={key:?} was used for another request; give each request its own"
            ))),
            Some(Slot { answer: Some(answer), .. }) => Ok(Turn::Replay(answer.clone())),
            Some(Slot { answer: None, .. }) => {
                Err(Problem::InProgress(format!("idempotency-key={key:?} is being worked on; ask again for its answer")))
            }
            None => Ok(Turn::First(self.begin(&mut known, key, fingerprint, None))),
        }
    }

    fn begin(
        self: &Arc<Self>,
        known: &mut Known,
        key: &str,
        fingerprint: Fingerprint,
        before: Option<(Instant, Remembered)>,
    ) -> Claim {
        known.slots.insert(key.to_owned(), Slot { fingerprint, answer: None });
        Claim { of: Arc::clone(self), key: key.to_owned(), before }
    }
}

impl Claim {
    /// What the same request was answered before, when there was room for some of its rows.
    pub(super) fn before(&self) -> Option<&Remembered> {
        self.before.as_ref().map(|(_, before)| before)
    }

    /// Remembers the answer.
    pub(super) fn answer(self, answer: Remembered, now: Instant) {
        let mut known = self.of.known.lock();
        known.remember(&self.key, now, answer);
        known.forget(now, self.of.window, self.of.capacity);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut known = self.of.known.lock();
        if known.slots.get(&self.key).is_some_and(|slot| slot.answer.is_none()) {
            match self.before.take() {
                Some((at, before)) => known.remember(&self.key, at, before),
                None => drop(known.slots.remove(&self.key)),
            }
        }
    }
}

impl Known {
    fn remember(&mut self, key: &str, at: Instant, answer: Remembered) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.bytes += answer.json.len();
        slot.answer = Some(answer);
        self.order.push_back((at, key.to_owned()));
    }

    /// Forgets the answer of a key that is to be worked on again, and says when it was given.
    fn take(&mut self, key: &str) -> Option<Instant> {
        let Slot { answer, .. } = self.slots.remove(key)?;
        self.bytes -= answer.map_or(0, |answer| answer.json.len());
        let place = self.order.iter().position(|(_, other)| other == key)?;
        self.order.remove(place).map(|(at, _)| at)
    }

    fn forget(&mut self, now: Instant, window: Duration, capacity: usize) {
        while let Some((at, _)) = self.order.front() {
            let expired = now.saturating_duration_since(*at) >= window;
            if !expired && self.order.len() <= capacity && self.bytes <= MAX_BYTES {
                return;
            }
            let Some((_, key)) = self.order.pop_front() else { return };
            if let Some(Slot { answer: Some(answer), .. }) = self.slots.remove(&key) {
                self.bytes -= answer.json.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(capacity: usize) -> Arc<Idempotency> {
        Arc::new(Idempotency::new(Duration::from_secs(10), capacity))
    }

    fn remembered(text: &'static str) -> Remembered {
        Remembered { status: StatusCode::ACCEPTED, json: Bytes::from_static(text.as_bytes()), stopped_at: None }
    }

    fn first(store: &Arc<Idempotency>, key: &str, now: Instant) -> Claim {
        match store.claim(key, [0; 32], now) {
            Ok(Turn::First(claim)) => claim,
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn an_answer_is_replayed_until_the_window_ends() {
        let (store, start) = (store(10), Instant::now());
        first(&store, "a", start).answer(remembered("1"), start);
        let later = start + Duration::from_millis(9_999);
        assert!(matches!(store.claim("a", [0; 32], later), Ok(Turn::Replay(answer)) if answer == remembered("1")));
        first(&store, "a", start + Duration::from_secs(10));
    }

    #[test]
    fn a_key_is_one_requests_own() {
        let (store, now) = (store(10), Instant::now());
        let claim = first(&store, "a", now);
        assert!(matches!(store.claim("a", [0; 32], now), Err(Problem::InProgress(_))));
        assert!(matches!(store.claim("a", [1; 32], now), Err(Problem::KeyReused(_))));
        drop(claim);
        first(&store, "a", now).answer(remembered("1"), now);
        assert!(matches!(store.claim("a", [1; 32], now), Err(Problem::KeyReused(_))));
    }

    #[test]
    fn a_request_that_was_stopped_goes_on_where_it_was() {
        let (store, now) = (store(10), Instant::now());
        let stopped = Remembered { stopped_at: Some(3), ..remembered("12") };
        first(&store, "a", now).answer(stopped.clone(), now);
        // Given up again, and worked on by one at a time.
        let claim = first(&store, "a", now);
        assert_eq!(claim.before(), Some(&stopped));
        assert!(matches!(store.claim("a", [0; 32], now), Err(Problem::InProgress(_))));
        drop(claim);
        let held = || {
            let known = store.known.lock();
            (known.order.len(), known.bytes)
        };
        assert_eq!(held(), (1, 2));
        first(&store, "a", now).answer(remembered("123"), now);
        assert!(matches!(store.claim("a", [0; 32], now), Ok(Turn::Replay(answer)) if answer == remembered("123")));
        assert_eq!(held(), (1, 3));
        // Another body is another try.
        first(&store, "b", now).answer(stopped, now);
        let Ok(Turn::First(claim)) = store.claim("b", [1; 32], now) else { panic!("the key is free") };
        assert_eq!(claim.before(), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let (store, now) = (store(3), Instant::now());
        for key in ["a", "b", "c", "d"] {
            first(&store, key, now).answer(remembered("1"), now);
        }
        assert_eq!(store.known.lock().slots.len(), 3);
        assert!(matches!(store.claim("b", [0; 32], now), Ok(Turn::Replay(_))));
        first(&store, "a", now);
        let big = Remembered { status: StatusCode::OK, json: Bytes::from(vec![b' '; MAX_BYTES]), stopped_at: None };
        first(&store, "e", now).answer(big, now);
        let known = store.known.lock();
        assert_eq!((known.order.len(), known.bytes), (1, MAX_BYTES));
    }
}

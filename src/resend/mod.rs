//! Records that are at rest (dead letters, a store's history) given to a sink, outside of a logger.
//!
//! A batch counts as sent when the sink owns it; only then is it noted in a [`State`] beside the [`Source`]. So whoever is killed and
//! starts again gives one batch twice at most, with the same writers and seqs.

#[cfg(feature = "cli")]
pub(crate) mod letters;
pub(crate) mod parquet;
mod records;
#[cfg(feature = "cli")]
pub(crate) mod sqlite;
mod state;

pub(crate) use records::Records;
pub(crate) use state::{Mark, State};

use crate::batch::{Batch, Origin};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::sink::{Sink, SinkError, SinkErrorKind};
use crate::stats::Stats;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Between two questions whether the sink owns a batch by now.
const POLL: Duration = Duration::from_millis(5);
/// Between two questions whether a sink that failed works again.
const PROBE: Duration = Duration::from_millis(200);

/// Records at rest, in an order that does not change.
pub(crate) trait Source {
    /// Fills `records`, which are empty, with the next that `state` does not have, of one part of the source. `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read.
    fn next(&mut self, state: &State, records: &mut Records) -> Result<Option<Mark>, Error>;
}

/// Sends what `state` does not have of the source. `tell` is given the number of records of each batch that is owned, and says whether to go on.
///
/// # Errors
/// The source cannot be read, the sink does not take records now, or how far it came cannot be noted.
pub(crate) fn send_all(
    source: &mut dyn Source,
    sender: &mut Sender,
    state: &mut State,
    tell: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, Error> {
    let (mut records, mut sent) = (Records::default(), 0);
    while let Some(mark) = source.next(state, &mut records)? {
        if !records.is_empty() {
            sender.send(&mut records)?;
        }
        state.add(mark)?;
        sent += records.len();
        if !tell(records.len()) {
            break;
        }
        records.clear();
    }
    Ok(sent)
}

/// One process at a time sends a source: whoever holds the file `path`.
///
/// # Errors
/// Another one does, or the file cannot be made.
#[cfg(feature = "cli")]
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    let busy = || format!("another process holds path={}: wait until it has ended", path.display());
    try_lock(path)?.ok_or_else(|| Error::new(ErrorKind::Storage, busy()))
}

/// As [`lock`]; `None` when another process holds the file.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>, Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Storage, format!("cannot lock path={}: {error}; give this user the right to", path.display()))
    };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Gives records to a sink, a batch at a time.
pub(crate) struct Sender {
    sink: Box<dyn Sink>,
    stats: Arc<Stats>,
    clock: SystemClock,
    batch: u64,
    /// How long a sink may fail before that is an error.
    patience: Duration,
    end: End,
}

/// By when the sender is to end, once somebody says so.
pub(crate) type End = Arc<OnceLock<Instant>>;

impl Sender {
    /// `stats` is what the sink counts in.
    pub(crate) fn new(sink: Box<dyn Sink>, stats: Arc<Stats>, patience: Duration, end: End) -> Self {
        Sender { sink, stats, clock: SystemClock::default(), batch: 0, patience, end }
    }

    /// Sends the records, which are then owned: stored, or with the dead letters.
    ///
    /// # Errors
    /// The sink has failed for as long as the patience lasts, or it is to end. It may have some of the records.
    pub(crate) fn send(&mut self, records: &mut Records) -> Result<(), Error> {
        let mut until = None;
        loop {
            let error = match self.try_send(records) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // From the first failure on: until then it may have taken its time.
            let until = *until.get_or_insert_with(|| {
                tracing::warn!(%error, "a batch cannot be sent; it is tried again");
                Instant::now() + self.patience
            });
            if !self.works_again(until) {
                let message = format!("{error}; what was sent is noted: see to it and run the command again");
                return Err(Error::new(ErrorKind::Storage, message));
            }
        }
    }

    /// A sink that has not answered has not failed: what it was given may arrive yet, and would be there twice if it were given again. It says in its own time
    /// (`kafka.deadline`) what became of it.
    fn try_send(&mut self, records: &mut Records) -> Result<(), SinkError> {
        self.batch += 1;
        let id = self.batch;
        self.sink.write(&Batch { id, origin: Origin::Replay, chunks: records.chunks() })?;
        while self.sink.commit()? < Some(id) {
            if self.end.get().is_some_and(|end| Instant::now() >= *end) {
                let message = "the sink has not answered before it was to end";
                return Err(SinkError::new(self.sink.name(), SinkErrorKind::Unavailable, message));
            }
            std::thread::sleep(POLL);
        }
        self.sink.maintain(self.clock.now(), false).map(drop)
    }

    fn works_again(&mut self, until: Instant) -> bool {
        while Instant::now() < until && self.end.get().is_none() {
            if self.sink.probe().is_ok() {
                return true;
            }
            std::thread::sleep(PROBE);
        }
        false
    }

    /// Ends the sink: what it has in files of its own is finished. Returns how many records are with the dead letters.
    ///
    /// # Errors
    /// The sink could not finish; nothing is lost, and the next start does.
    pub(crate) fn close(mut self) -> Result<u64, Error> {
        let now = self.clock.now();
        self.sink.close(now).map_err(|error| Error::new(ErrorKind::Storage, error.to_string()))?;
        Ok(self.stats.unstorable.load(Ordering::Relaxed))
    }
}

//! The shipper beside a logger: of a direct store, and of what one has left when the mode is another by now.

use crate::config::{Config, Store};
use crate::error::{Error, ErrorKind};
use crate::logger::{Guard, Service};
#[cfg(any(feature = "kafka", feature = "nats"))]
use crate::outbox::Outbox;
use crate::ship::{Event, Feed, Observer, Retain, Shipper};
use crate::stats::Stats;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Starts the shipper of a direct store, where there is something for it to do: an upload, or files with a retention.
pub(super) fn attach(config: &Config, guard: Guard, stats: &Arc<Stats>) -> Result<Guard, Error> {
    let retain = if config.direct.store == Store::Parquet { retain(config) } else { Retain::default() };
    if config.upload.url.is_none() && retain == Retain::default() {
        return Ok(guard);
    }
    start(config, retain, guard, stats)
}

/// Starts the shipper for what a direct store has not uploaded, if it has anything; the mode is another now.
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(super) fn attach_rest(config: &Config, guard: Guard, stats: &Arc<Stats>) -> Result<Guard, Error> {
    if config.upload.url.is_none() || !waits(config) {
        return Ok(guard);
    }
    tracing::info!(dir = %config.direct.dir.display(), "uploads what direct mode has left; see direct.backlog");
    start(config, retain(config), guard, stats)
}

fn start(config: &Config, retain: Retain, mut guard: Guard, stats: &Arc<Stats>) -> Result<Guard, Error> {
    let feed = feed(config, stats).map_err(|message| Error::new(ErrorKind::Storage, message))?;
    let shipper = Shipper::start(config.upload.clone(), &config.direct.dir, retain, feed, observer(Arc::clone(stats)))
        .map_err(|error| Error::new(ErrorKind::Upload, error.to_string()))?;
    guard.attach(Box::new(shipper));
    Ok(guard)
}

fn retain(config: &Config) -> Retain {
    Retain { age: config.direct.retain, bytes: config.direct.retain_bytes.map(|bytes| bytes.as_u64()) }
}

/// Whether files or rows wait. What cannot be read now may have some.
#[cfg(any(feature = "kafka", feature = "nats"))]
fn waits(config: &Config) -> bool {
    let dir = &config.direct.dir;
    let files = || Outbox::open(dir, false).and_then(|outbox| outbox.pending()).map_or(true, |pending| !pending.is_empty());
    (dir.join("outbox").is_dir() && files()) || rows_wait(config)
}

#[cfg(all(feature = "sqlite", any(feature = "kafka", feature = "nats")))]
fn rows_wait(config: &Config) -> bool {
    use crate::sink::sqlite::SqliteExport;
    let settings = super::direct::sqlite_settings(config);
    // To open one that is not there would make it.
    settings.path().exists()
        && SqliteExport::open(settings).map_or(true, |mut export| {
            let planned = export.plan(0, std::time::SystemTime::now().into());
            planned.map_or(true, |plan| plan.is_some()) || export.pending().map_or(true, |pending| pending.is_some())
        })
}

#[cfg(all(not(feature = "sqlite"), any(feature = "kafka", feature = "nats")))]
fn rows_wait(_config: &Config) -> bool {
    false
}

/// Rows of a SQLite store, also of one that was the store before.
fn feed(config: &Config, stats: &Arc<Stats>) -> Result<Option<Box<dyn Feed>>, String> {
    #[cfg(feature = "sqlite")]
    if config.upload.url.is_some() {
        let settings = super::direct::sqlite_settings(config);
        let is_store = config.mode == crate::config::Mode::Direct && config.direct.store == Store::Sqlite;
        if is_store || settings.path().exists() {
            let export = crate::ship::SqliteFeed::open(settings, &config.upload, Arc::clone(stats))?;
            return Ok(Some(Box::new(export)));
        }
    }
    let _ = (config, stats);
    Ok(None)
}

fn observer(stats: Arc<Stats>) -> Observer {
    Arc::new(move |event| match event {
        Event::Uploaded { bytes, took } => {
            stats.uploaded_files.fetch_add(1, Ordering::Relaxed);
            stats.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
            stats.upload_seconds.observe(took.as_secs_f64());
        }
        Event::Failed { .. } => {
            stats.upload_failures.fetch_add(1, Ordering::Relaxed);
        }
        Event::Pending { files, bytes: _, lag } => {
            stats.upload_pending_files.store(files, Ordering::Release);
            stats.upload_lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        }
        Event::Deleted { .. } => {}
    })
}

impl Service for Shipper {
    fn stop(&mut self, deadline: Instant) {
        // What is sealed by now goes up in the time that is left; the rest is uploaded by the next start.
        let left = deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() && self.status().last_error.is_none() && !self.ship_now(left) {
            tracing::info!(pending = self.status().pending_files, "files wait for their upload; the next start uploads them");
        }
    }
}

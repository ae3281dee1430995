//! `mode = "direct"`: a local store, and its upload.

use crate::config::Config;
#[cfg(any(feature = "sqlite", feature = "parquet"))]
use crate::config::Store;
use crate::error::{Error, ErrorKind};
use crate::logger::builder::make_home;
use crate::logger::home::Home;
use crate::logger::{Durability, Guard, Logger};
use crate::sink::{Sink, SinkError};
use crate::stats::Stats;
use std::sync::Arc;

/// Starts the logger, and the shipper beside it.
pub(super) fn open(config: &Config) -> Result<(Logger, Guard), Error> {
    let dir = &config.direct.dir;
    let home = make_home(dir)?;
    let stats = Arc::new(Stats::default());
    let sink = open_sink(config, &home, &stats).map_err(|error| Error::new(ErrorKind::Storage, error.to_string()))?;
    let builder =
        Logger::builder(config.logger.clone()).batch(config.batch.clone()).dir(dir).stats(Arc::clone(&stats)).home(home);
    let builder = builder.also_from(super::other_dirs(config, dir));
    let (logger, guard) = builder.sink(sink).ledger(config.ledger.clone()).open()?;
    #[cfg(feature = "upload")]
    let guard = upload::attach(config, guard, &stats)?;
    Ok((logger, guard))
}

pub(super) fn open_sink(config: &Config, home: &Home, stats: &Arc<Stats>) -> Result<Box<dyn Sink>, SinkError> {
    let fsync = config.logger.durability == Durability::Fsync;
    match config.direct.store {
        #[cfg(feature = "sqlite")]
        Store::Sqlite => {
            let _ = (home, stats);
            Ok(Box::new(crate::sink::sqlite::SqliteSink::open(sqlite_settings(config))?))
        }
        #[cfg(feature = "parquet")]
        Store::Parquet => {
            let settings = crate::sink::parquet::ParquetSettings {
                dir: config.direct.dir.clone(),
                spool: home.spool(),
                rotation: config.rotation.clone(),
                fsync,
                max_disk_bytes: config.upload.url.as_ref().map(|_| config.upload.max_disk_bytes.as_u64()),
            };
            Ok(Box::new(crate::sink::parquet::ParquetSink::open(settings, Arc::clone(stats))?))
        }
        #[cfg(not(all(feature = "sqlite", feature = "parquet")))]
        missing => {
            let _ = (home, stats, fsync);
            let message = format!("direct.store={missing:?} is not in this build: add the crate's feature of that name");
            Err(SinkError::new("direct", crate::sink::SinkErrorKind::Unavailable, message))
        }
    }
}

#[cfg(feature = "sqlite")]
pub(crate) fn sqlite_settings(config: &Config) -> crate::sink::sqlite::SqliteSettings {
    crate::sink::sqlite::SqliteSettings {
        dir: config.direct.dir.clone(),
        synchronous_full: config.logger.durability == Durability::Fsync,
        busy_timeout: config.sqlite.busy_timeout,
        index_timestamp: config.sqlite.index_timestamp,
        views: config.sqlite.views,
        retain: config.direct.retain,
        retain_bytes: config.direct.retain_bytes,
        keep_until_uploaded: config.upload.url.is_some(),
    }
}

#[cfg(feature = "upload")]
mod upload {
    use super::{Arc, Config, Error, ErrorKind, Guard, Stats, Store};
    use crate::logger::Service;
    use crate::ship::{Event, Feed, Observer, Retain, Shipper};
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    /// Starts the shipper, where there is something for it to do: an upload, or files with a retention.
    pub(super) fn attach(config: &Config, mut guard: Guard, stats: &Arc<Stats>) -> Result<Guard, Error> {
        let files = config.direct.store == Store::Parquet;
        let retain = Retain { age: config.direct.retain, bytes: config.direct.retain_bytes.map(|bytes| bytes.as_u64()) };
        let retain = if files { retain } else { Retain::default() };
        if config.upload.url.is_none() && retain == Retain::default() {
            return Ok(guard);
        }
        let feed = feed(config, stats).map_err(|message| Error::new(ErrorKind::Storage, message))?;
        let shipper = Shipper::start(config.upload.clone(), &config.direct.dir, retain, feed, observer(Arc::clone(stats)))
            .map_err(|error| Error::new(ErrorKind::Upload, error.to_string()))?;
        guard.attach(Box::new(shipper));
        Ok(guard)
    }

    fn feed(config: &Config, stats: &Arc<Stats>) -> Result<Option<Box<dyn Feed>>, String> {
        #[cfg(feature = "sqlite")]
        if config.upload.url.is_some() && config.direct.store == Store::Sqlite {
            let export = crate::ship::SqliteFeed::open(super::sqlite_settings(config), &config.upload, Arc::clone(stats))?;
            return Ok(Some(Box::new(export)));
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
}

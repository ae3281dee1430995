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
    let sink = open_sink(config, &home, &stats).map_err(|error| {
        home.discard();
        Error::new(ErrorKind::Storage, error.to_string())
    })?;
    let builder =
        Logger::builder(config.logger.clone()).batch(config.batch.clone()).dir(dir).stats(Arc::clone(&stats)).home(home);
    let builder = builder.also_from(super::other_dirs(config, dir));
    let (logger, guard) = builder.sink(sink).ledger(config.ledger.clone()).open()?;
    #[cfg(feature = "upload")]
    let guard = super::upload::attach(config, guard, &stats)?;
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
                max_disk_bytes: config.upload.max_disk_bytes.as_u64(),
                uploads: config.upload.url.is_some(),
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
        uploads: config.upload.url.is_some().then_some(crate::sink::sqlite::Uploads {
            max_rows: config.upload.max_rows,
            max_disk_bytes: config.upload.max_disk_bytes.as_u64(),
        }),
    }
}

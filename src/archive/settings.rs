//! A [`Job`] of `[archive]`, `[kafka]`, `[rotation]` and `[upload]`.

use super::job::{Job, OnBad, SameKey};
use super::predictions::{self, Predictions};
use super::scratch::ScratchDir;
use crate::config::{ArchiveSettings, BadMessages, Config, TableKind};
use crate::error::{Error, ErrorKind};
use crate::sink::kafka::topics;
use std::sync::Arc;

/// Below `upload.url`: what archivers need to go on. Readers of tables pass over names that begin with `_`.
const STATES: &str = "_predlog/states";

impl Job {
    /// Archives predictions as the configuration says.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a key that is missing or wrong. [`ErrorKind::Storage`]: `archive.dir` cannot be made.
    pub fn predictions(config: &Config, until_end: bool) -> Result<Job, Error> {
        let wrong = |why: String| Error::new(ErrorKind::Config, why);
        if config.upload.url.is_none() {
            let why = "upload.url is not set: expected where predlog archive stores objects, such as \"s3://bucket/prefix\" or \"file:///directory\"";
            return Err(wrong(why.to_owned()));
        }
        let found = topics(&config.kafka).map_err(wrong)?;
        let settings = &config.archive;
        let optional = vec![found.ledger.clone()];
        let topics = if settings.topics.is_empty() { vec![found.pattern, found.ledger] } else { settings.topics.clone() };
        let scratch = ScratchDir::open(&settings.dir).map_err(|why| Error::new(ErrorKind::Storage, why))?;
        let scratch = Arc::new(scratch);
        let format = Predictions::new(config, scratch.clone()).map_err(wrong)?;
        Ok(Job {
            group: settings.group.clone(),
            client: found.client,
            topics,
            optional,
            start: settings.start,
            format: Arc::new(format),
            rotation: config.rotation.clone(),
            on_bad: on_bad(settings),
            log_bad: false,
            target: config.upload.clone(),
            same_key: SameKey::KeepBoth,
            table: (settings.table == TableKind::Delta).then(|| predictions::delta_table(&config.upload)),
            state_prefix: format!("{STATES}/{}", crate::format::path::model_stem(&settings.group)),
            scratch,
            memory: usize::try_from(settings.memory.as_u64()).unwrap_or(usize::MAX),
            threads: if settings.threads > 0 { settings.threads } else { cores() },
            until_end,
        })
    }
}

fn on_bad(settings: &ArchiveSettings) -> OnBad {
    match (settings.on_bad, &settings.dead_letter_topic) {
        (BadMessages::Stop, _) => OnBad::Stop,
        (BadMessages::Skip, _) => OnBad::Skip,
        (BadMessages::DeadLetter, Some(name)) => OnBad::Topic { name: name.clone(), make: None, headers: true, connector: None },
        (BadMessages::DeadLetter, None) => OnBad::Objects { prefix: settings.dead_letter_prefix.clone() },
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

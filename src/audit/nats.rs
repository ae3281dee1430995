//! NATS: the stream that has the ledger, and then the predictions'.

use super::messages::Models;
use super::{Run, Target};
use crate::error::{Error, ErrorKind};
use crate::ledger::Stated;
use crate::sink::nats::Reader;
use crate::sink::nats::settings::NatsSettings;
use std::path::Path;

impl Run<'_> {
    /// The streams as they are when this is called: what comes later is not looked at.
    pub(super) fn nats(&mut self, settings: &NatsSettings, dir: Option<&Path>) -> Result<(), Error> {
        let failed = |why: String| Error::new(ErrorKind::Storage, format!("nats.servers={}: {why}", settings.servers));
        let reader = Reader::open(settings).map_err(failed)?;
        let (book, tally) = (&mut self.book, &mut self.tally);
        let stated = reader.statements(&mut |line| {
            if let Some(stated) = Stated::from_line(line) {
                book.add(stated, &mut tally.cells);
            }
        });
        stated.map_err(failed)?;
        self.tally.copies = Some(0);
        self.tally.begin(&mut self.book);
        if let Some(dir) = dir {
            self.spool_records(dir)?;
        }
        let mut models = Models::new();
        reader.predictions(&mut |line| self.message_line(&mut models, line)).map_err(failed)
    }
}

impl Target {
    /// The stream of these settings, with what waits in the fallback's directory.
    pub fn nats(settings: &NatsSettings) -> Self {
        Target::Nats(Box::new(settings.clone()))
    }
}

//! The Delta table that a job's files become part of.

use super::encoder::TableFile;
use super::job::TableTarget;
use super::lease::TopicPartition;
use super::position::Position;
use super::range::Fault;
use crate::delta::{AppTransaction, Commit, CommitOutcome, DeltaError, DeltaSettings, DeltaTable};
use arrow_schema::Schema;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The table, and where it is: the offset behind the last range of each topic partition that it has.
pub(super) struct Table {
    delta: DeltaTable,
    group: String,
    places: Mutex<HashMap<TopicPartition, Option<i64>>>,
}

/// Why a range is not in the table.
#[derive(Debug)]
pub(super) enum NotCommitted {
    /// It may work when it is tried again.
    Later(String),
    /// Another archiver has stored this topic partition further.
    Fenced(String),
    /// It never will: the table is none that can take these columns.
    Never(String),
}

impl From<DeltaError> for NotCommitted {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Store(why) | DeltaError::Contended(why) => NotCommitted::Later(why),
            never => NotCommitted::Never(never.to_string()),
        }
    }
}

impl Table {
    /// Opens the table, or makes it.
    pub fn open(target: &TableTarget, group: &str) -> Result<Table, Fault> {
        let opened =
            DeltaTable::open_or_create(&target.store, DeltaSettings::default(), &target.schema, &target.partition_columns);
        let delta = opened.map_err(|error| match error.into() {
            NotCommitted::Later(why) => Fault::Again(why),
            NotCommitted::Fenced(why) | NotCommitted::Never(why) => Fault::Fatal(why),
        })?;
        Ok(Table { delta, group: group.to_owned(), places: Mutex::default() })
    }

    /// Where a partition that is taken over goes on, by what the group has committed and what the table has. `end` is the offset behind the
    /// partition's last message.
    ///
    /// # Errors
    /// The table does not answer, or has more than the topic.
    pub fn take_over(&self, at: &TopicPartition, position: Position, end: i64) -> Result<Position, String> {
        let place = self.delta.txn_version(&self.app_id(at)).map_err(|error| error.to_string())?;
        self.places.lock().insert(at.clone(), place);
        let Some(place) = place else { return Ok(position) };
        // The planned range is in the table: it is gone through once more, and found there.
        if position.end == Some(place) || position.offset.is_some_and(|offset| offset >= place) {
            return Ok(position);
        }
        if end < place {
            return Err(format!(
                "the table has {at} up to offset={place}, the topic ends at offset={end}: it was made anew; give archive.group another name"
            ));
        }
        tracing::warn!(partition = %at, group_offset = position.offset, table_offset = place, "goes on where the table is, not the group");
        Ok(Position { offset: Some(place), from_table: true, ..Position::default() })
    }

    /// Makes the files of a range, which ends before `end`, part of the table: once, however often this is called.
    pub fn commit(&self, at: &TopicPartition, end: i64, files: &[TableFile]) -> Result<(), NotCommitted> {
        let previous = self.places.lock().get(at).copied().flatten();
        let txn = AppTransaction { app_id: self.app_id(at), version: end, previous };
        // Files of one range have few schemas, if more than one.
        let mut schemas: Vec<&Schema> = Vec::new();
        for file in files {
            if !schemas.contains(&&*file.schema) {
                schemas.push(&file.schema);
            }
        }
        let adds = files.iter().map(|file| file.add.clone()).collect();
        match self.delta.commit(Commit { adds, txns: vec![txn], schemas })? {
            CommitOutcome::Committed(_) | CommitOutcome::AlreadyStored => {
                self.places.lock().insert(at.clone(), Some(end));
                Ok(())
            }
            CommitOutcome::Fenced => Err(NotCommitted::Fenced(format!(
                "the table is not at offset={previous:?} of {at} any more: another archiver of the group went on from there"
            ))),
        }
    }

    fn app_id(&self, at: &TopicPartition) -> String {
        format!("{}/{}/{}", self.group, at.topic, at.partition)
    }
}

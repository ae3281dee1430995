//! The Delta table that a job's files become part of.

use super::encoder::TableFile;
use super::job::TableTarget;
use super::lease::TopicPartition;
use super::position::Position;
use super::range::Fault;
use crate::delta::{AppTransaction, Commit, CommitOutcome, DeltaError, DeltaSettings, DeltaTable};
use arrow_schema::Schema;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// Ranges in one commit at most.
const TOGETHER: usize = 256;

/// The table, and where it is: the offset behind the last range of each topic partition that it has.
pub(super) struct Table {
    delta: DeltaTable,
    group: String,
    places: Mutex<HashMap<TopicPartition, Option<i64>>>,
    /// Ranges that came while a commit was under way: the next one has all of them.
    waiting: Mutex<Vec<Range>>,
    turn: Mutex<()>,
}

/// A range whose files are stored, and not part of the table yet.
struct Range {
    at: TopicPartition,
    /// Where the table was when this came: while it waited the partition may have been lost, and taken over anew further on.
    previous: Option<i64>,
    end: i64,
    files: Arc<[TableFile]>,
    answer: Sender<Result<(), NotCommitted>>,
}

/// Why a range is not in the table.
#[derive(Clone, Debug)]
pub(super) enum NotCommitted {
    /// It may work when it is tried again.
    Later(String),
    /// Another archiver has stored this topic partition further.
    Fenced(String),
    /// The table has other types for columns of these files, whose values may be kept beside them: the files are to be made anew.
    Columns(String),
    /// It never will: the table is none that can take these columns.
    Never(String),
}

/// Structs with a JSON column beside them.
const WITH_JSON: [&str; 2] = ["inputs.", "outputs."];

impl From<DeltaError> for NotCommitted {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Store(why) | DeltaError::Contended(why) => NotCommitted::Later(why),
            DeltaError::ColumnType { column, table, files } if WITH_JSON.iter().any(|side| column.starts_with(side)) => {
                NotCommitted::Columns(format!(
                    "column={column:?}: another writer of the table has added it as {table}, the files have it as {files}: they are made anew, with                      what does not fit in the JSON column"
                ))
            }
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
            NotCommitted::Fenced(why) | NotCommitted::Columns(why) | NotCommitted::Never(why) => Fault::Fatal(why),
        })?;
        let (places, waiting, turn) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Table { delta, group: group.to_owned(), places, waiting, turn })
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
                "the table has {at} up to offset={place}, the topic ends at offset={end}: the topic has lost messages, or was made anew by brokers that give topics no ids; give archive.group another name"
            ));
        }
        tracing::warn!(partition = %at, group_offset = position.offset, table_offset = place, "goes on where the table is, not the group");
        Ok(Position { offset: Some(place), from_table: true, topic: position.topic, ..Position::default() })
    }

    /// Makes the files of a range, which ends before `end`, part of the table: once, however often this is called.
    ///
    /// A commit is a request or two, and one version comes after the other: what waits for its turn is committed together.
    pub fn commit(&self, at: &TopicPartition, end: i64, files: &Arc<[TableFile]>) -> Result<(), NotCommitted> {
        let (answer, mine) = channel();
        let previous = self.places.lock().get(at).copied().flatten();
        self.waiting.lock().push(Range { at: at.clone(), previous, end, files: files.clone(), answer });
        let _turn = self.turn.lock();
        loop {
            // Whoever had the turn before has answered all that it took.
            if let Ok(answer) = mine.try_recv() {
                return answer;
            }
            let ranges: Vec<Range> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(TOGETHER);
                waiting.drain(..count).collect()
            };
            if ranges.is_empty() {
                return Err(NotCommitted::Later("the commit was not answered".to_owned()));
            }
            self.commit_all(&ranges);
        }
    }

    fn commit_all(&self, ranges: &[Range]) {
        let mut partitions = HashSet::new();
        // A partition that was lost and came back may be there twice.
        if ranges.len() > 1 && ranges.iter().all(|range| partitions.insert(&range.at)) {
            match self.commit_together(ranges) {
                // Of one of them, or of some: each for itself tells which.
                Err(NotCommitted::Fenced(_) | NotCommitted::Columns(_) | NotCommitted::Never(_)) => {}
                answer => return ranges.iter().for_each(|range| tell(range, answer.clone())),
            }
        }
        for range in ranges {
            tell(range, self.commit_together(std::slice::from_ref(range)));
        }
    }

    fn commit_together(&self, ranges: &[Range]) -> Result<(), NotCommitted> {
        let txn = |range: &Range| AppTransaction { app_id: self.app_id(&range.at), version: range.end, previous: range.previous };
        let txns: Vec<AppTransaction> = ranges.iter().map(txn).collect();
        let expected: Vec<String> = txns.iter().map(|txn| format!("{}={:?}", txn.app_id, txn.previous)).collect();
        let files = || ranges.iter().flat_map(|range| &*range.files);
        // They have few schemas, if more than one.
        let mut schemas: Vec<&Schema> = Vec::new();
        for file in files() {
            if !schemas.contains(&&*file.schema) {
                schemas.push(&file.schema);
            }
        }
        let adds = files().map(|file| file.add.clone()).collect();
        match self.delta.commit(Commit { adds, txns, schemas })? {
            CommitOutcome::Committed(_) | CommitOutcome::AlreadyStored => {
                let mut places = self.places.lock();
                places.extend(ranges.iter().map(|range| (range.at.clone(), Some(range.end))));
                Ok(())
            }
            CommitOutcome::Fenced => Err(NotCommitted::Fenced(format!(
                "the table is not at {} any more: another archiver of the group went on from there",
                expected.join(", ")
            ))),
        }
    }

    fn app_id(&self, at: &TopicPartition) -> String {
        format!("{}/{}/{}", self.group, at.topic, at.partition)
    }
}

fn tell(range: &Range, answer: Result<(), NotCommitted>) {
    // It waits for its turn, and then looks.
    let _ = range.answer.send(answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::decode::arrow_schema;
    use crate::format::schema::ModelSchema;
    use crate::ship::UploadSettings;
    use std::thread::Scope;

    fn table(dir: &std::path::Path) -> Table {
        let url = Some(format!("file://{}", dir.display()));
        let schema = arrow_schema(&ModelSchema::default());
        let store = UploadSettings { url, ..UploadSettings::default() };
        Table::open(&TableTarget { store, schema, partition_columns: Vec::new() }, "group").expect("a table")
    }

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "topic".into(), partition }
    }

    fn commit(table: &Table, partition: i32, end: i64) -> Result<(), NotCommitted> {
        table.commit(&at(partition), end, &Arc::from([]))
    }

    fn take_over(table: &Table, partition: i32) {
        table.take_over(&at(partition), Position::default(), i64::MAX).expect("the table answers");
    }

    /// Has a range wait for its turn, which somebody has.
    fn wait_for_turn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        table: &'scope Table,
        partition: i32,
        end: i64,
    ) -> std::thread::ScopedJoinHandle<'scope, Result<(), NotCommitted>> {
        let before = table.waiting.lock().len();
        let waiting = scope.spawn(move || commit(table, partition, end));
        while table.waiting.lock().len() == before {
            std::thread::yield_now();
        }
        waiting
    }

    #[test]
    fn a_range_that_waited_while_its_partition_went_on_elsewhere_is_refused_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (table, other) = (table(dir.path()), table(dir.path()));
        for partition in 0..3 {
            take_over(&table, partition);
            commit(&table, partition, 100).unwrap();
        }
        std::thread::scope(|scope| {
            let turn = table.turn.lock();
            let ranges = [0, 1, 2].map(|partition| wait_for_turn(scope, &table, partition, 200));
            // The partition goes to another archiver, which stores a part of that range, and comes back.
            take_over(&other, 1);
            commit(&other, 1, 150).unwrap();
            take_over(&table, 1);
            drop(turn);
            let [first, second, third] = ranges.map(|range| range.join().expect("an answer"));
            assert!(matches!(&second, Err(NotCommitted::Fenced(why)) if why.contains("group/topic/1=Some(100)")), "{second:?}");
            first.and(third).expect("the others are stored");
        });
        take_over(&other, 0);
        assert_eq!(*other.places.lock(), [(at(0), Some(200)), (at(1), Some(150))].into());
        commit(&table, 1, 200).expect("it goes on from where the table is");
    }

    #[test]
    fn a_partition_that_waits_twice_is_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        take_over(&table, 0);
        std::thread::scope(|scope| {
            let turn = table.turn.lock();
            let ranges = [100, 100].map(|end| wait_for_turn(scope, &table, 0, end));
            drop(turn);
            for range in ranges {
                range.join().expect("an answer").expect("stored, or there already");
            }
        });
        assert_eq!(*table.places.lock(), [(at(0), Some(100))].into());
    }
}

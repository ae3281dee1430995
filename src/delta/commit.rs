//! A commit: what applications expect, the columns, the put, and again when another writer was first.

use super::action::{Commit, CommitOutcome, Lines, RemoveFile, Seen};
use super::log::Put;
use super::schema::{delta_schema, merge};
use super::table::State;
use super::{AddFile, DeltaError, DeltaTable, now_millis};
use crate::retry::Backoff;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Another writer was first: who waits long then is late again.
const CONFLICT_MIN: Duration = Duration::from_millis(1);
const CONFLICT_MAX: Duration = Duration::from_millis(100);

/// What is to be written, in whichever version it becomes.
pub(super) struct Change<'a> {
    pub commit: Commit<'a>,
    pub removes: Vec<RemoveFile>,
    /// The version that the removed files were found in.
    pub seen: u64,
    pub operation: &'static str,
    pub parameters: Value,
}

impl DeltaTable {
    /// Makes files part of the table, and says how far applications have come with them.
    ///
    /// # Errors
    /// A column's type is another than the table's, the store does not answer within the settings' timeout, or other writers were always
    /// first. Nothing was written then as far as is known: the same commit may be tried again, and is stored once if it has a transaction.
    pub fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, DeltaError> {
        let parameters = json!({"mode": "Append"});
        let change = Change { commit, removes: Vec::new(), seen: 0, operation: "WRITE", parameters };
        self.commit_change(&change)
    }

    /// As [`commit`](DeltaTable::commit). A change that removes files is fenced when another writer has removed one of them.
    pub(super) fn commit_change(&self, change: &Change<'_>) -> Result<CommitOutcome, DeltaError> {
        let state = &mut *self.state.lock();
        self.reload_if_old(state)?;
        if !change.removes.is_empty() && self.removed_since(state, change)? {
            return Ok(CommitOutcome::Fenced);
        }
        let (id, started) = (crate::unique::uuid().to_string(), Instant::now());
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::u64(..));
        let mut conflicts = Backoff::new(CONFLICT_MIN, CONFLICT_MAX, fastrand::u64(..));
        loop {
            if let Some(outcome) = self.asked_before(state, change)? {
                return Ok(outcome);
            }
            let (lines, redefined) = self.lines(state, change, &id)?;
            let version = state.version + 1;
            let failure = match self.files.put_version(version, &lines)? {
                Put::Done => {
                    self.committed(state, change, redefined);
                    return Ok(CommitOutcome::Committed(version));
                }
                Put::Exists => None,
                Put::Unknown(error) => Some(error),
            };
            let seen = self.catch_up(state)?;
            // Only the version that was tried can be ours: later ones were not tried, earlier ones were looked at.
            if seen.first().is_some_and(|first| first.txn_id.as_deref() == Some(&*id)) {
                self.checkpoint_if_due(state, version);
                return Ok(CommitOutcome::Committed(version));
            }
            if removed_elsewhere(&change.removes, &seen) {
                return Ok(CommitOutcome::Fenced);
            }
            if started.elapsed() >= self.settings.commit_timeout {
                return Err(failure.unwrap_or_else(|| self.contended(conflicts.failures())));
            }
            let wait = if failure.is_some() { backoff.failed() } else { conflicts.failed() };
            tracing::debug!(version, error = failure.map(|error| error.to_string()), retry_in = ?wait, "a commit is tried again");
            std::thread::sleep(wait);
        }
    }

    /// What the applications' versions say of the commit before it is made.
    fn asked_before(&self, state: &mut State, change: &Change<'_>) -> Result<Option<CommitOutcome>, DeltaError> {
        let (mut expected, mut stored) = (true, !change.commit.txns.is_empty());
        for txn in &change.commit.txns {
            let now = self.txn(state, &txn.app_id)?;
            expected &= now == txn.previous;
            stored &= now.is_some_and(|now| now >= txn.version);
        }
        Ok(match (stored, expected) {
            (true, _) => Some(CommitOutcome::AlreadyStored),
            (false, false) => Some(CommitOutcome::Fenced),
            (false, true) => None,
        })
    }

    /// The lines of the next version, and whether they change the columns.
    fn lines(&self, state: &State, change: &Change<'_>, id: &str) -> Result<(Vec<u8>, bool), DeltaError> {
        let now = now_millis();
        let mut lines = Lines::new(change.operation, change.parameters.clone(), id, now);
        let mut grown = None;
        for schema in &change.commit.schemas {
            let known = state.snapshot.schema();
            grown = merge(grown.as_ref().unwrap_or(&known), &delta_schema(schema)?)?.or(grown);
        }
        let redefined = grown.is_some();
        if let Some(columns) = grown {
            let mut metadata = state.metadata()?;
            let text = serde_json::to_string(&columns).map_err(|error| self.wrong("write the columns", &error))?;
            metadata["schemaString"] = Value::String(text);
            lines.metadata(&metadata);
        }
        change.commit.txns.iter().for_each(|txn| lines.txn(txn, now));
        change.removes.iter().for_each(|remove| lines.remove(remove, now));
        let data_change = change.removes.is_empty();
        change.commit.adds.iter().for_each(|add: &AddFile| lines.add(add, data_change));
        Ok((lines.into_bytes(), redefined))
    }

    /// The put was answered: what is known of the table moves on with it.
    fn committed(&self, state: &mut State, change: &Change<'_>, redefined: bool) {
        state.version += 1;
        for txn in &change.commit.txns {
            state.txns.insert(txn.app_id.clone(), Some(txn.version));
        }
        let version = state.version;
        if redefined && let Err(error) = self.reload(state) {
            // The commit stands. Without the new columns nothing may be written: the next one reads them first.
            tracing::warn!(version, %error, "the columns that were just written are read again before the next commit");
            state.listed = Instant::now().checked_sub(Duration::from_secs(3_600)).unwrap_or(state.listed);
        }
        self.checkpoint_if_due(state, version);
    }

    /// Reads what others have written since, version by version.
    fn catch_up(&self, state: &mut State) -> Result<Vec<Seen>, DeltaError> {
        let mut all = Vec::new();
        while let Some(seen) = self.files.read_version(state.version + 1)? {
            state.version += 1;
            for (app_id, version) in &seen.txns {
                state.txns.insert(app_id.clone(), Some(*version));
            }
            all.push(seen);
        }
        if all.iter().any(|seen| seen.redefined) {
            let txns = std::mem::take(&mut state.txns);
            let version = state.version;
            self.reload(state)?;
            if state.version == version {
                state.txns = txns;
            }
        }
        Ok(all)
    }

    /// Whether a file that is to be removed is gone already, or may be: versions that cannot be read any more say nothing.
    fn removed_since(&self, state: &State, change: &Change<'_>) -> Result<bool, DeltaError> {
        for version in change.seen + 1..=state.version {
            match self.files.read_version(version)? {
                Some(seen) if !removed_elsewhere(&change.removes, std::slice::from_ref(&seen)) => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    fn contended(&self, tries: u32) -> DeltaError {
        DeltaError::Contended(format!(
            "{}: other writers were first {tries} times within {:?}: commit less often, from fewer writers",
            self.files.target.shown, self.settings.commit_timeout
        ))
    }
}

fn removed_elsewhere(removes: &[RemoveFile], seen: &[Seen]) -> bool {
    seen.iter().flat_map(|seen| &seen.removed).any(|path| removes.iter().any(|remove| remove.raw_path == *path))
}

//! Checkpoints, by delta_kernel, and the log files that they make needless.

use super::table::State;
use super::{DeltaError, DeltaTable, now_millis};
use delta_kernel::snapshot::CheckpointWriteResult;
use object_store::ObjectMeta;
use std::num::NonZero;
use std::time::Duration;

/// Log files that are deleted after one checkpoint.
const MAX_DELETES: usize = 1_000;

impl DeltaTable {
    /// Writes a checkpoint of the newest version, and deletes what it makes needless of the log. Returns its version.
    ///
    /// # Errors
    /// The store does not answer. The table is whole without a checkpoint.
    pub fn checkpoint(&self) -> Result<u64, DeltaError> {
        let state = &mut *self.state.lock();
        self.write_checkpoint(state)
    }

    /// After a commit. That stands whatever becomes of the checkpoint, so a failure is a warning.
    pub(super) fn checkpoint_if_due(&self, state: &mut State, version: u64) {
        let configured = state.snapshot.table_properties().checkpoint_interval.map(NonZero::get);
        let every = configured.unwrap_or(self.settings.checkpoint_every);
        if every == 0 || !version.is_multiple_of(every) {
            return;
        }
        if let Err(error) = self.write_checkpoint(state) {
            tracing::warn!(version, %error, "no checkpoint was written: the next one is tried {every} versions later");
        }
    }

    fn write_checkpoint(&self, state: &mut State) -> Result<u64, DeltaError> {
        self.reload(state)?;
        let (result, snapshot) =
            state.snapshot.checkpoint(&*self.engine, None).map_err(|error| self.wrong("write a checkpoint", &error))?;
        state.snapshot = snapshot;
        if matches!(result, CheckpointWriteResult::Written) {
            tracing::debug!(version = state.version, "a checkpoint was written");
        }
        self.clean_log(state)?;
        Ok(state.version)
    }

    /// Deletes what Delta's protocol calls expired: what is before the newest checkpoint that is not newer than the newest version past its retention. So
    /// every version within the retention can still be read.
    fn clean_log(&self, state: &State) -> Result<(), DeltaError> {
        let properties = state.snapshot.table_properties();
        if properties.enable_expired_log_cleanup == Some(false) {
            return Ok(());
        }
        let retention = properties.log_retention_duration.unwrap_or(self.settings.log_retention);
        let files = self.files.list_log()?;
        let expired = expired(&files, now_millis(), retention);
        for file in &expired {
            self.files.delete(&file.location)?;
        }
        if !expired.is_empty() {
            tracing::info!(files = expired.len(), "expired files of the log were deleted");
        }
        Ok(())
    }
}

/// The log files that may go, the oldest first.
fn expired(files: &[ObjectMeta], now: i64, retention: Duration) -> Vec<&ObjectMeta> {
    let cutoff = now.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    let mut named: Vec<(u64, &str, &ObjectMeta)> =
        files.iter().filter_map(|file| parse(file).map(|(v, kind)| (v, kind, file))).collect();
    let old = |file: &ObjectMeta| file.last_modified.timestamp_millis() <= cutoff;
    let cutoff_version = named.iter().filter(|(_, kind, file)| *kind == "json" && old(file)).map(|(version, ..)| *version).max();
    let checkpoints = named.iter().filter(|(_, kind, _)| *kind == "checkpoint.parquet").map(|(version, ..)| *version);
    let Some(checkpoint) = cutoff_version.and_then(|cutoff| checkpoints.filter(|version| *version <= cutoff).max()) else {
        return Vec::new();
    };
    named.retain(|(version, ..)| *version < checkpoint);
    named.sort_by_key(|(version, ..)| *version);
    named.into_iter().map(|(.., file)| file).take(MAX_DELETES).collect()
}

/// The version and the kind of a log file; `None` for one that is no version's.
fn parse(file: &ObjectMeta) -> Option<(u64, &str)> {
    let (version, kind) = file.location.filename()?.split_once('.')?;
    let digits = version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit());
    // Of a checkpoint in several parts, and of the second kind, nothing is known here but its version.
    digits.then(|| version.parse().ok()).flatten().map(|version| (version, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;
    use std::time::SystemTime;

    fn file(name: &str, millis: u64) -> ObjectMeta {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        ObjectMeta {
            location: Path::from(format!("t/_delta_log/{name}")),
            last_modified: time.into(),
            size: 1,
            e_tag: None,
            version: None,
        }
    }

    #[test]
    fn only_what_a_checkpoint_past_the_retention_has_made_needless_goes() {
        let name = |version: u64, kind: &str| format!("{version:020}.{kind}");
        let mut files: Vec<ObjectMeta> = (0..10).map(|version| file(&name(version, "json"), 1_000 * version)).collect();
        files.extend([3, 6, 9].map(|version| file(&name(version, "checkpoint.parquet"), 1_000 * version)));
        files.push(file("_last_checkpoint", 0));
        let gone = |now, retention| {
            let mut names: Vec<_> = expired(&files, now, Duration::from_millis(retention))
                .iter()
                .map(|file| file.location.filename().unwrap()[18..].to_owned())
                .collect();
            names.sort();
            names
        };
        assert!(gone(10_000, 8_000).is_empty(), "version 2 is the newest past the retention, and no checkpoint is that old");
        assert_eq!(
            gone(10_000, 5_000),
            ["00.json", "01.json", "02.json"],
            "version 5 is past it, so the checkpoint of 3 is kept"
        );
        assert_eq!(gone(10_000, 0).len(), 9 + 2, "all before the checkpoint of 9");
    }
}

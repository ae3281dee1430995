//! What of a source is owned by where it goes, in a file beside the source.

use crate::error::{Error, ErrorKind};
use crate::record::Writer;
use crate::seqs::SeqRanges;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Which records are owned, by writer.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    to: String,
    owned: HashMap<Writer, SeqRanges>,
}

/// The file: `{"to":"kafka …","owned":{"<writer>":[[first,last],…]}}`.
#[derive(Serialize, Deserialize)]
struct Text {
    to: String,
    owned: BTreeMap<String, Vec<(u64, u64)>>,
}

impl State {
    /// What `path` says; nothing where it is missing. `to` names where the records go.
    ///
    /// # Errors
    /// The file cannot be read, or is about another place.
    pub(crate) fn load(path: PathBuf, to: &str) -> Result<Self, Error> {
        let mut state = State { path, to: to.to_owned(), owned: HashMap::new() };
        let shown = state.path.display();
        let wrong = |why: String| Error::new(ErrorKind::Storage, format!("path={shown}: {why}"));
        let bytes = match fs::read(&state.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) => return Err(wrong(format!("cannot read what was sent already: {error}"))),
        };
        let remedy = "delete the file to send everything again";
        let text: Text = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("is not a list of what was sent already: {error}; {remedy}")))?;
        if text.to != to {
            return Err(wrong(format!("says what was sent to={:?}, not to={to:?}; {remedy}", text.to)));
        }
        for (writer, ranges) in text.owned {
            let writer = writer.parse().map_err(|why| wrong(format!("{why}; {remedy}")))?;
            state.owned.entry(writer).or_default().extend(ranges);
        }
        Ok(state)
    }

    /// Whether a record is owned.
    pub(crate) fn has(&self, writer: Writer, seq: u64) -> bool {
        self.owned.get(&writer).is_some_and(|seqs| seqs.contains(seq))
    }

    /// How many records are owned.
    pub(crate) fn count(&self) -> u64 {
        self.owned.values().map(SeqRanges::count).sum()
    }

    /// Notes that these are owned, on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written: after a kill these would be sent again.
    pub(crate) fn add(&mut self, records: impl Iterator<Item = (Writer, u64)>) -> Result<(), Error> {
        for (writer, seq) in records {
            self.owned.entry(writer).or_default().insert(seq, seq);
        }
        self.save().map_err(|error| {
            let path = self.path.display();
            Error::new(ErrorKind::Storage, format!("cannot note in path={path} what was sent: {error}; free some space"))
        })
    }

    fn save(&self) -> io::Result<()> {
        let owned = self.owned.iter().map(|(writer, seqs)| (writer.to_string(), seqs.iter().collect())).collect();
        let text = serde_json::to_vec(&Text { to: self.to.clone(), owned })?;
        let temporary = temporary(&self.path);
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)
    }

    /// The source is gone, and its state goes with it.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_state_is_found_again_and_is_of_one_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let writer = Writer::new(Uuid::from_u128(1), 3);
        let mut state = State::load(path.clone(), "kafka a").unwrap();
        state.add([(writer, 1), (writer, 2), (writer, 9)].into_iter()).unwrap();
        let again = State::load(path.clone(), "kafka a").unwrap();
        assert!(again.has(writer, 2) && again.has(writer, 9) && !again.has(writer, 3));
        assert_eq!(again.count(), 3);
        let error = State::load(path.clone(), "kafka b").unwrap_err().to_string();
        assert!(error.contains("to=\"kafka a\"") && error.contains("delete the file"), "{error}");
        again.remove().unwrap();
        assert_eq!(State::load(path, "kafka b").unwrap().count(), 0);
    }
}

//! How far a source has been sent, in a file beside it: a line for each batch that is owned.

use crate::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// What is owned of each part of a source. The order of a part's records never changes, so a position says which.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    to: String,
    through: HashMap<String, u64>,
    file: Option<File>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    to: String,
}

/// Of a part of a source, all through a position: a rowid, a number of rows or of lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) part: String,
    pub(crate) through: u64,
}

impl State {
    /// What `path` says; nothing where it is missing. `to` names where the records go.
    ///
    /// # Errors
    /// The file cannot be read, or is about another place.
    pub(crate) fn load(path: PathBuf, to: &str) -> Result<Self, Error> {
        let mut state = State { path, to: to.to_owned(), through: HashMap::new(), file: None };
        let shown = state.path.display();
        let wrong = |why: String| Error::new(ErrorKind::Storage, format!("path={shown}: {why}"));
        let text = match fs::read_to_string(&state.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) => return Err(wrong(format!("cannot read how far it was sent: {error}"))),
        };
        let remedy = "delete the file to send everything again";
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        // A kill may have left nothing whole.
        let Some(head) = lines.next() else { return Ok(state) };
        let unreadable = |error| wrong(format!("does not say how far it was sent: {error}; {remedy}"));
        let head: Head = serde_json::from_str(head).map_err(unreadable)?;
        if head.to != to {
            return Err(wrong(format!("says what was sent to={:?}, not to={to:?}; {remedy}", head.to)));
        }
        for line in lines {
            let mark: Mark = serde_json::from_str(line).map_err(unreadable)?;
            state.through.insert(mark.part, mark.through);
        }
        Ok(state)
    }

    /// How far a part was sent; 0 when not at all.
    pub(crate) fn through(&self, part: &str) -> u64 {
        self.through.get(part).copied().unwrap_or(0)
    }

    /// Notes that all through `mark` is owned, on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written: after a kill the batch would be sent again.
    pub(crate) fn add(&mut self, mark: Mark) -> Result<(), Error> {
        self.append(&mark).map_err(|error| {
            let path = self.path.display();
            Error::new(ErrorKind::Storage, format!("cannot note in path={path} what was sent: {error}; free some space"))
        })?;
        self.through.insert(mark.part, mark.through);
        Ok(())
    }

    fn append(&mut self, mark: &Mark) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(rewrite(&self.path, &self.to, &self.through)?),
        };
        file.write_all(&line(mark)?)?;
        file.sync_data()
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

/// A run begins with a file of one line a part: without the torn line that a kill may have left, and no longer than it need be.
fn rewrite(path: &PathBuf, to: &str, through: &HashMap<String, u64>) -> io::Result<File> {
    let mut text = line(&Head { to: to.to_owned() })?;
    for (part, &through) in through {
        text.extend(line(&Mark { part: part.clone(), through })?);
    }
    let mut temporary = path.clone().into_os_string();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    OpenOptions::new().append(true).open(path)
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(part: &str, through: u64) -> Mark {
        Mark { part: part.to_owned(), through }
    }

    #[test]
    fn a_state_is_found_again_without_a_torn_line_and_is_of_one_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = State::load(path.clone(), "kafka a").unwrap();
        for (part, through) in [("x", 10), ("y", 3), ("x", 20)] {
            state.add(mark(part, through)).unwrap();
        }
        drop(state);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"part\":\"x\",\"thr").unwrap();
        let mut again = State::load(path.clone(), "kafka a").unwrap();
        assert_eq!((again.through("x"), again.through("y"), again.through("z")), (20, 3, 0));
        again.add(mark("z", 1)).unwrap();
        assert_eq!(State::load(path.clone(), "kafka a").unwrap().through("z"), 1);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
        let error = State::load(path.clone(), "kafka b").unwrap_err().to_string();
        assert!(error.contains("to=\"kafka a\"") && error.contains("delete the file"), "{error}");
        again.remove().unwrap();
        assert_eq!(State::load(path, "kafka b").unwrap().through("x"), 0);
    }
}

//! What is not proven uploaded: a marker for each sealed file.

use crate::format::path::{LEDGER, MAX_COMPONENT_BYTES, parse_file_name};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A marker whose file is missing is stale when it is this old: whoever announced it has died before the file took its name.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What stands before `predictions/` in the path of a file that was made for the upload alone.
const EXPORT: &str = "export/";

/// The path of a sealed file relative to the store's directory, proven to be one of ours:
/// `predictions/model_name=<escaped>/date=YYYY-MM-DD/<writer>-<first seq>-<last seq>.parquet`, or `ledger/date=…/…`, with or without `export/`
/// before it; or `predictions/…/compact-<hash>.parquet`.
///
/// Only what parses is ever uploaded or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relative(String);

impl Relative {
    /// The path's text, with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the file was made for the upload alone (from SQLite rows) and goes once it is stored.
    pub fn is_export(&self) -> bool {
        self.0.starts_with(EXPORT)
    }

    /// Whether the file holds the ledger's entries.
    pub fn is_ledger(&self) -> bool {
        self.key().split('/').next() == Some(LEDGER)
    }

    /// The object's key below the prefix: the path without `export/`.
    pub fn key(&self) -> &str {
        self.0.strip_prefix(EXPORT).unwrap_or(&self.0)
    }

    /// `<writer>-<first seq>-<last seq>.parquet`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The marker's name: the file's, and a digest of the whole path, as files of two models or days may share a name.
    fn marker(&self) -> String {
        let mut name = format!("{}.", self.file_name());
        for byte in &Sha256::digest(self.0.as_bytes())[..4] {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

impl fmt::Display for Relative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Relative {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = text.strip_prefix(EXPORT).unwrap_or(text);
        let parts: Vec<&str> = key.split('/').collect();
        match parts[..] {
            ["predictions", model, date, name]
                if is_model(model) && is_date(date) && (parse_file_name(name).is_some() || is_compacted(name)) =>
            {
                Ok(Relative(text.to_owned()))
            }
            [LEDGER, date, name] if is_date(date) && parse_file_name(name).is_some() => Ok(Relative(text.to_owned())),
            _ => Err(format!(
                "path={text:?} is not [export/]predictions/model_name=<name>/date=YYYY-MM-DD/<writer>-<first seq>-<last seq>.parquet, \
                 nor [export/]ledger/date=YYYY-MM-DD/<the same>"
            )),
        }
    }
}

fn is_model(part: &str) -> bool {
    // Control characters of ASCII are escaped in our names, and object stores do not take them.
    part.len() <= MAX_COMPONENT_BYTES
        && part.strip_prefix("model_name=").is_some_and(|name| !name.is_empty() && !name.contains(|c: char| c.is_ascii_control()))
}

/// What `predlog compact` made of files that were uploaded: it ages as they did.
fn is_compacted(name: &str) -> bool {
    let hash = name.strip_prefix("compact-").and_then(|rest| rest.strip_suffix(".parquet"));
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_date(part: &str) -> bool {
    part.strip_prefix("date=").is_some_and(|date| {
        date.len() == 10
            && date.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
    })
}

/// A sealed file that is not proven uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, below the store's directory.
    pub relative: Relative,
    /// Its size.
    pub bytes: u64,
    /// When it was sealed.
    pub modified: SystemTime,
}

/// The markers of one directory, `<dir>/outbox/`. Any number of processes may announce; one at a time ships.
///
/// A sealed file *without* a marker counts as uploaded. So the marker comes first, and the file takes its name after:
///
/// ```text
/// announce(relative)  ->  rename(temporary, <dir>/<relative>)  ->  …upload…  ->  done(relative)
/// ```
#[derive(Clone, Debug)]
pub struct Outbox {
    root: PathBuf,
    markers: PathBuf,
    durable: bool,
}

impl Outbox {
    /// The outbox of `dir`. `durable`: announcements outlive a loss of power.
    ///
    /// # Errors
    /// `<dir>/outbox` cannot be made.
    pub fn open(dir: impl Into<PathBuf>, durable: bool) -> io::Result<Self> {
        let root = dir.into();
        let markers = root.join("outbox");
        fs::create_dir_all(&markers)?;
        Ok(Outbox { root, markers, durable })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The absolute place of a file.
    pub fn path(&self, relative: &Relative) -> PathBuf {
        self.root.join(relative.as_str())
    }

    /// Says that this file will take its name. To be called before it does, and harmless again.
    ///
    /// # Errors
    /// The marker cannot be written: the file must not take its name, or it would count as uploaded.
    pub fn announce(&self, relative: &Relative) -> io::Result<()> {
        let name = relative.marker();
        // Unique among threads and processes; never parsed as a marker, as it starts with a dot.
        let temporary = self.markers.join(format!(".{name}.{}", crate::unique::uuid()));
        let written = (|| {
            let mut file = match File::create_new(&temporary) {
                // The whole directory was deleted, as people do; what comes is published in a new one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&self.markers)?;
                    File::create_new(&temporary)?
                }
                made => made?,
            };
            file.write_all(relative.as_str().as_bytes())?;
            if self.durable {
                file.sync_all()?;
            }
            fs::rename(&temporary, self.markers.join(&name))
        })();
        if written.is_err() {
            // What is left is swept by `pending`.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        if self.durable { File::open(&self.markers)?.sync_all() } else { Ok(()) }
    }

    /// Announces `relative` and gives the finished file `staged` (on the same file system) that name.
    ///
    /// # Errors
    /// What the file system says; `staged` is then still where it was, or the file has its name and its marker.
    pub fn publish(&self, staged: &Path, relative: &Relative) -> io::Result<()> {
        let path = self.path(relative);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent)?;
        self.announce(relative)?;
        fs::rename(staged, &path)?;
        // A process that was stopped for a day between the two may have lost its marker to the sweep.
        if !self.is_pending(relative) {
            self.announce(relative)?;
        }
        if self.durable { File::open(parent)?.sync_all() } else { Ok(()) }
    }

    /// Whether the file has a marker: it is not proven uploaded.
    pub fn is_pending(&self, relative: &Relative) -> bool {
        self.markers.join(relative.marker()).exists()
    }

    /// What is to be uploaded, oldest first. A marker whose file is missing is left alone: the file may be about to take its name.
    /// After a day without it the marker is removed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pending(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for marker in fs::read_dir(&self.markers)? {
            let marker = marker?;
            if let Some(entry) = self.entry(&marker.path(), &marker.file_name().to_string_lossy())? {
                entries.push(entry);
            }
        }
        entries.sort_by(|a, b| (a.modified, &a.relative).cmp(&(b.modified, &b.relative)));
        Ok(entries)
    }

    fn entry(&self, marker: &Path, name: &str) -> io::Result<Option<Entry>> {
        let text = match fs::read_to_string(marker) {
            Ok(text) => text,
            // Another process was faster, or it is not text and so not ours.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(None),
            Err(error) => return Err(error),
        };
        let parsed = text.parse::<Relative>().ok();
        let ours = parsed.as_ref().filter(|relative| relative.marker() == name);
        if let Some(relative) = ours {
            match fs::metadata(self.path(relative)) {
                Ok(file) => {
                    let modified = file.modified()?;
                    return Ok(Some(Entry { relative: relative.clone(), bytes: file.len(), modified }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let abandoned = ours.is_some() || name.starts_with('.');
        let age = fs::metadata(marker).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if abandoned && age.is_some_and(|age| age > STALE_AFTER) {
            tracing::info!(marker = name, "removed a marker whose file never came");
            remove_if_there(marker)?;
        }
        Ok(None)
    }

    /// The bytes that wait for their upload.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pending_bytes(&self) -> io::Result<u64> {
        Ok(self.pending()?.iter().map(|entry| entry.bytes).sum())
    }

    /// The file is proven stored, or it is gone for good: its marker goes.
    ///
    /// # Errors
    /// The marker cannot be removed; the file will be proven again.
    pub fn done(&self, relative: &Relative) -> io::Result<()> {
        remove_if_there(&self.markers.join(relative.marker()))
    }

    /// Every sealed file below `predictions/` and `ledger/`, or below these in `export/`. Anything else that lies there is left out.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn sealed(&self, exports: bool) -> io::Result<Vec<Entry>> {
        let top = if exports { EXPORT } else { "" };
        let models = names(&self.root.join(format!("{top}predictions")))?;
        let directories = models.into_iter().map(|model| format!("{top}predictions/{model}"));
        let mut entries = Vec::new();
        for directory in directories.chain([format!("{top}{LEDGER}")]) {
            for date in names(&self.root.join(&directory))? {
                for name in names(&self.root.join(format!("{directory}/{date}")))? {
                    let Ok(relative) = format!("{directory}/{date}/{name}").parse::<Relative>() else { continue };
                    // It may have been deleted since.
                    let Ok(file) = fs::metadata(self.path(&relative)) else { continue };
                    entries.push(Entry { modified: file.modified()?, bytes: file.len(), relative });
                }
            }
        }
        entries.sort_by(|a, b| (a.modified, &a.relative).cmp(&(b.modified, &b.relative)));
        Ok(entries)
    }

    /// Deletes a sealed file, and the directories that it leaves empty.
    ///
    /// # Errors
    /// The file cannot be deleted.
    pub fn delete(&self, relative: &Relative) -> io::Result<()> {
        let path = self.path(relative);
        remove_if_there(&path)?;
        for parent in path.ancestors().skip(1).take(2) {
            // Fails when it is not empty, which is as it should be.
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in a directory, none when it is missing or no directory. What is not UTF-8 is not ours.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

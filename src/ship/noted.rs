//! Where the files and rows of a directory were uploaded to: `<dir>/.uploaded-to`, a line for each target, the newest last.
//!
//! A file without a marker and a row with an upload count as uploaded, and neither says where to.

use super::settings::UploadSettings;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The file's name.
pub(crate) const FILE: &str = ".uploaded-to";

/// What a target is called there: its URL, and its endpoint if it is not the cloud's own.
pub(crate) fn name(settings: &UploadSettings) -> String {
    let plain = |text: &str| text.trim_end_matches('/').to_owned();
    let url = settings.url.as_deref().map(plain).unwrap_or_default();
    settings.endpoint.as_deref().map(plain).map_or_else(|| url.clone(), |endpoint| format!("{url} at {endpoint}"))
}

/// The targets that something was uploaded to, the newest last.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn targets(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(dir.join(FILE)) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Notes that something is stored in `target`, before it counts as uploaded. To be called by who ships alone.
///
/// # Errors
/// The file cannot be written.
pub(super) fn note(dir: &Path, target: &str) -> io::Result<()> {
    let mut known = targets(dir)?;
    match known.last() {
        Some(last) if last == target => return Ok(()),
        Some(before) => {
            tracing::warn!(dir = %dir.display(), before, target, "uploads go to another target than before: what was uploaded is not there");
        }
        None => {}
    }
    known.push(target.to_owned());
    let temporary = dir.join(format!("{FILE}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all((known.join("\n") + "\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_noted_once_each_time_that_they_change() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(targets(dir.path()).unwrap(), Vec::<String>::new());
        ["a", "a", "b", "b", "a"].iter().for_each(|target| note(dir.path(), target).unwrap());
        assert_eq!(targets(dir.path()).unwrap(), ["a", "b", "a"]);
    }

    #[test]
    fn a_target_is_its_url_and_endpoint() {
        let settings = |url: &str, endpoint: Option<&str>| UploadSettings {
            url: Some(url.to_owned()),
            endpoint: endpoint.map(str::to_owned),
            ..UploadSettings::default()
        };
        assert_eq!(name(&settings("s3://b/p/", None)), name(&settings("s3://b/p", None)));
        assert_eq!(name(&settings("s3://b/p", Some("http://h:9000/"))), "s3://b/p at http://h:9000");
    }
}

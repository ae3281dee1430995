//! Parquet files in a bucket: of each only the columns that are asked for are fetched.

use super::{Run, parquet, unreadable};
use crate::error::{Error, ErrorKind};
use crate::format::path::LEDGER;
use crate::outbox::{Outbox, Relative};
use crate::ship::UploadSettings;
use crate::ship::reader::{Bucket, Object};
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::{Buf, Bytes};
use std::ops::Range;
use std::path::Path;

/// What is fetched of a file at first: its metadata as a rule.
const TAIL: u64 = 256 << 10;

impl Run<'_> {
    /// Audits a bucket. What waits in `dir` for its upload is on its way there.
    pub(super) fn bucket(&mut self, settings: &UploadSettings, dir: Option<&Path>) -> Result<(), Error> {
        let failed = |error: crate::ship::UploadError| Error::new(ErrorKind::Upload, error.to_string());
        let bucket = Bucket::open(settings).map_err(failed)?;
        if let Some(dir) = dir {
            self.local_entries(dir)?;
        }
        for object in bucket.list(LEDGER).map_err(failed)? {
            let (book, cells) = (&mut self.book, &mut self.tally.cells);
            let read = Remote::open(&bucket, &object, None)
                .and_then(|file| parquet::entries(file, &mut |stated| book.add(stated, cells)));
            self.note(&object.key, read);
        }
        self.tally.begin(&mut self.book);
        if let Some(dir) = dir {
            self.local_rows(dir)?;
        }
        let mut objects = bucket.list("predictions").map_err(failed)?;
        let date = |object: &Object| object.key.split('/').nth(2).unwrap_or_default().to_owned();
        objects.sort_by_cached_key(|object| (date(object), object.key.clone()));
        let all = self.tally.has_bare_ranges();
        for object in objects {
            if all || self.window.contains_date(&date(&object)) {
                let read = Remote::open(&bucket, &object, Some(&["writer", "seq", "timestamp"]))
                    .and_then(|file| parquet::rows(file, &mut self.tally, &mut *self.progress, false));
                self.note(&object.key, read);
            }
        }
        Ok(())
    }

    /// Statements that are not in the bucket yet.
    fn local_entries(&mut self, dir: &Path) -> Result<(), Error> {
        self.file_entries(dir)?;
        let database = dir.join("predictions.db");
        if database.exists() { self.database_entries(&database) } else { Ok(()) }
    }

    /// Records that are not in the bucket yet: in segments, in files with a marker, in rows that no upload has.
    fn local_rows(&mut self, dir: &Path) -> Result<(), Error> {
        self.spool_records(dir)?;
        if dir.join("outbox").is_dir() {
            let waiting = Outbox::open(dir, false).and_then(|outbox| Ok((outbox.pending()?, outbox)));
            let (waiting, outbox) = waiting.map_err(|error| unreadable(dir, &error))?;
            let predictions = |relative: &Relative| relative.key().starts_with("predictions/");
            for entry in waiting.iter().filter(|entry| predictions(&entry.relative)) {
                let path = outbox.path(&entry.relative);
                let read = parquet::open(&path).and_then(|file| parquet::rows(file, &mut self.tally, &mut *self.progress, true));
                self.note(&path.display().to_string(), read);
            }
        }
        let database = dir.join("predictions.db");
        if database.exists() { self.rows_to_upload(&database) } else { Ok(()) }
    }
}

/// A file in a bucket of which some parts were fetched.
struct Remote {
    bucket: Bucket,
    object: Object,
    /// Where each part starts.
    parts: Vec<(u64, Bytes)>,
}

impl Remote {
    /// Fetches the metadata and these columns; without any, all.
    fn open(bucket: &Bucket, object: &Object, columns: Option<&[&str]>) -> Result<Self, ParquetError> {
        let mut file = Remote { bucket: bucket.clone(), object: object.clone(), parts: Vec::new() };
        let from = if columns.is_some() { object.bytes.saturating_sub(TAIL) } else { 0 };
        file.fetch(std::slice::from_ref(&(from..object.bytes)))?;
        let Some(columns) = columns else { return Ok(file) };
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        let chunks = metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
        let wanted = chunks.filter(|chunk| columns.contains(&chunk.column_path().string().as_str()));
        let ranges: Vec<Range<u64>> =
            wanted.map(|chunk| chunk.byte_range()).map(|(start, length)| start..start + length).collect();
        file.fetch(&ranges)?;
        Ok(file)
    }

    fn fetch(&mut self, ranges: &[Range<u64>]) -> Result<(), ParquetError> {
        let got = self.bucket.get(&self.object, ranges).map_err(ParquetError::General)?;
        self.parts.extend(ranges.iter().map(|range| range.start).zip(got));
        Ok(())
    }

    /// What was fetched from `start` on.
    fn part(&self, start: u64) -> Option<Bytes> {
        let holds = |&&(from, ref bytes): &&(u64, Bytes)| (from..from + bytes.len() as u64).contains(&start);
        let (from, bytes) = self.parts.iter().find(holds)?;
        Some(bytes.slice((start - from) as usize..))
    }
}

impl Length for Remote {
    fn len(&self) -> u64 {
        self.object.bytes
    }
}

impl ChunkReader for Remote {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self.part(start) {
            Some(part) => Ok(part.reader()),
            None => Ok(self.get_bytes(start, (self.object.bytes.saturating_sub(start)).min(TAIL) as usize)?.reader()),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if let Some(part) = self.part(start).filter(|part| part.len() >= length) {
            return Ok(part.slice(..length));
        }
        let range = start..start + length as u64;
        let mut got = self.bucket.get(&self.object, &[range]).map_err(ParquetError::General)?;
        got.pop().ok_or_else(|| ParquetError::EOF(format!("nothing at offset={start}")))
    }
}

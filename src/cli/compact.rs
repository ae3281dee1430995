//! `predlog compact`: small files become large ones.

use super::{FAILED, say};
use crate::compact::{CompactError, CompactOptions, CompactReport, compact_layout};
use crate::config::Config;
use crate::delta::{DeltaError, DeltaSettings, DeltaTable};
use crate::error::{Error, ErrorKind};
use crate::ship::{UploadErrorKind, UploadSettings};
use bytesize::ByteSize;
use clap::Args;
use humantime_serde::re::humantime;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub(super) const HELP: &str = "\
A Delta table is compacted in one commit, beside its writers: rows are the same before and after, and files of earlier versions stay until the table is vacuumed.

Plain Parquet files have no such commit. While a partition is at it, a reader may see its rows twice (same writer and seq), never one of them missing; killed at any moment, the next
run ends what was begun. Compact partitions that nobody writes to any more: --min-age must be longer than any uploader or archiver may be late.

Credentials, the endpoint and the region are those of [upload].

Exits with 0 when all was done, with 1 when not, with 2 when asked wrongly.

Examples:
  predlog compact --table s3://bucket/tables/predictions --dry-run
  predlog compact --table s3://bucket/tables/predictions --partition model_name=wine --min-age 10m
  predlog compact --files s3://bucket/prefix --partition date=2026-11-22 --min-age 1d";

#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "where")]
struct Where {
    /// The Delta table: s3://… (gs://, az://, file:///)
    #[arg(long, value_name = "URL")]
    table: Option<String>,
    /// The directory, or the URL of the prefix, with predictions/model_name=…/date=…/*.parquet
    #[arg(long, value_name = "URL")]
    files: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// The configuration file (else the file that PREDLOG_CONFIG names, else the defaults)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only partitions with this value; may be given for several columns
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = column_and_value)]
    partition: Vec<(String, String)>,
    /// Files smaller than this are put together until they are about as large
    #[arg(long, value_name = "BYTES", default_value = "128MiB")]
    target_size: ByteSize,
    /// Files that were written later are left alone
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    min_age: Duration,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn column_and_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(column, _)| !column.is_empty());
    pair.map(|(column, value)| (column.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected COLUMN=VALUE, such as date=2026-11-23".to_owned())
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let mut config = Config::load(arguments.config.as_deref())?;
    let Where { table, files } = arguments.place;
    let is_table = table.is_some();
    let option = if is_table { "--table" } else { "--files" };
    let place = table.or(files).unwrap_or_default();
    config.upload.url = Some(as_url(&place).map_err(|why| Error::new(ErrorKind::Config, format!("{option}={place:?}: {why}")))?);
    let wrong = |why: String| Error::new(ErrorKind::Config, format!("{option}: {}", why.replace("upload.url=", "")));
    config.upload.validate().map_err(wrong)?;
    let options = CompactOptions {
        partitions: arguments.partition.into_iter().collect(),
        target_bytes: arguments.target_size.as_u64(),
        min_age: arguments.min_age,
        dry_run: arguments.dry_run,
    };
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut progress = |report: &CompactReport| bar.set_message(told(report, options.dry_run));
    let report = if is_table {
        table_report(&config.upload, &options, &mut progress)
    } else {
        files_report(&config.upload, &options, &mut progress)
    };
    bar.finish_and_clear();
    let report = report?;
    say(&format!("{}\n", told(&report, options.dry_run)));
    if report.lost_races > 0 {
        eprintln!("another writer removed files of the table meanwhile, so nothing was committed: run it again");
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

/// A directory's path is as good as its URL.
fn as_url(place: &str) -> Result<String, String> {
    let expected = "expected a directory that is there, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";
    if place.contains("://") {
        // Opened, it would be made: a name that was mistyped would be an empty directory.
        let directory = url::Url::parse(place).ok().and_then(|url| url.to_file_path().ok());
        return match directory.filter(|directory| place.starts_with("file:") && !directory.is_dir()) {
            Some(_) => Err(format!("there is no such directory; {expected}")),
            None => Ok(place.to_owned()),
        };
    }
    let path = std::fs::canonicalize(place).map_err(|error| format!("{error}; {expected}"))?;
    url::Url::from_directory_path(path).map(String::from).map_err(|()| expected.to_owned())
}

fn table_report(
    upload: &UploadSettings,
    options: &CompactOptions,
    progress: &mut dyn FnMut(&CompactReport),
) -> Result<CompactReport, Error> {
    let failed = |error: DeltaError| {
        let kind = if matches!(error, DeltaError::Settings(_)) { ErrorKind::Config } else { ErrorKind::Upload };
        Error::new(kind, error.to_string())
    };
    DeltaTable::open(upload, DeltaSettings::default()).and_then(|table| table.optimize(options, progress)).map_err(failed)
}

fn files_report(
    upload: &UploadSettings,
    options: &CompactOptions,
    progress: &mut dyn FnMut(&CompactReport),
) -> Result<CompactReport, Error> {
    let failed = |error: CompactError| {
        let settings = matches!(&error, CompactError::Store(error) if error.kind == UploadErrorKind::Settings);
        Error::new(if settings { ErrorKind::Config } else { ErrorKind::Upload }, error.to_string())
    };
    compact_layout(upload, options, progress).map_err(failed)
}

fn told(report: &CompactReport, dry_run: bool) -> String {
    let CompactReport { files_before, files_after, rows, .. } = report;
    let before = ByteSize::b(report.bytes_before).display().iec();
    if dry_run {
        return format!("would put files={files_before} bytes={before} together as files={files_after}");
    }
    format!(
        "files={files_before} bytes={before} became files={files_after} bytes={} rows={rows}",
        ByteSize::b(report.bytes_after).display().iec()
    )
}

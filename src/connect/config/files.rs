//! What files are, what they are called, and when they are finished.

use super::reader::Reader;
use super::{Codec, FileFormat, Names, RotationRules};
use jiff::tz::TimeZone;

#[derive(Clone, Copy)]
enum Is {
    Parquet,
    Json,
    Bytes,
}

pub(super) fn names(reader: &mut Reader) -> Names {
    let delim = reader.exact("directory.delim").filter(|delim| delim != "/");
    if let Some(delim) = delim {
        reader.wrong("directory.delim", &delim, "/: a bucket's directories have no other");
    }
    let topics_dir = reader.text("topics.dir").unwrap_or_else(|| "topics".to_owned()).trim_matches('/').to_owned();
    let is_wrong = |part: &str| matches!(part, "" | "." | "..") || part.contains(is_illegal);
    if topics_dir.split('/').any(is_wrong) && !topics_dir.is_empty() {
        reader.wrong("topics.dir", &topics_dir, "directories with one / between them, none of them . or ..");
    }
    let file_delim = reader.text("file.delim").unwrap_or_else(|| "+".to_owned());
    if file_delim.contains(is_illegal) {
        reader.wrong("file.delim", &file_delim, "text without / and control characters");
    }
    let pad_width = usize::try_from(reader.number("filename.offset.zero.pad.width", 10, 0..=20)).unwrap_or(10);
    Names { topics_dir, file_delim, pad_width, by_source: false }
}

/// What no part of an object's key may have.
fn is_illegal(char: char) -> bool {
    char == '/' || char.is_control()
}

pub(super) fn rotation(reader: &mut Reader, timezone: Option<TimeZone>, has_time: bool) -> RotationRules {
    let flush_size = match reader.text("flush.size") {
        None => {
            reader.required("flush.size", "how many rows of a topic partition make its files");
            1
        }
        Some(text) => match text.parse::<u64>() {
            Ok(size) if (1..=i32::MAX.unsigned_abs().into()).contains(&size) => size,
            _ => {
                reader.wrong("flush.size", &text, "a whole number from 1 to 2147483647");
                1
            }
        },
    };
    let mut interval = |key| {
        let ms = reader.number(key, -1, -1..=i64::MAX);
        (ms > 0).then_some(ms)
    };
    let (mut interval_ms, schedule_ms) = (interval("rotate.interval.ms"), interval("rotate.schedule.interval.ms"));
    if let (Some(ms), false) = (interval_ms, has_time) {
        let why = "has no effect: expected partitioner.class=TimeBasedPartitioner, DailyPartitioner or HourlyPartitioner, whose extractor gives the time";
        reader.warn("rotate.interval.ms", &ms.to_string(), why);
        interval_ms = None;
    }
    if schedule_ms.is_some() && timezone.is_none() {
        let why = "timezone is not set, or wrong: expected the zone of rotate.schedule.interval.ms, such as UTC";
        reader.problems.push(why.to_owned());
    }
    let by_directory = reader.bool("rotate.file.on.partition.change", true);
    RotationRules { flush_size, interval_ms, by_directory, schedule: schedule_ms.zip(timezone) }
}

pub(super) fn format(reader: &mut Reader) -> FileFormat {
    let level = reader.number("s3.compression.level", -1, -1..=9);
    let is_gzip = reader.choice("s3.compression.type", false, &[("none", false), ("gzip", true)]);
    let gzip = is_gzip.then(|| u32::try_from(level).unwrap_or(6));
    let codecs =
        [("snappy", Codec::Snappy), ("none", Codec::None), ("gzip", Codec::Gzip), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)];
    let codec = reader.choice("parquet.codec", Codec::Snappy, &codecs);
    let extension = reader.text("format.bytearray.extension").unwrap_or_else(|| ".bin".to_owned());
    let separator = reader.exact("format.bytearray.separator").map_or_else(|| b"\n".to_vec(), String::into_bytes);
    if extension.contains(is_illegal) {
        reader.wrong("format.bytearray.extension", &extension, "text without / and control characters");
    }
    let known = [
        ("io.confluent.connect.s3.format.parquet.ParquetFormat", Is::Parquet),
        ("io.confluent.connect.s3.format.json.JsonFormat", Is::Json),
        ("io.confluent.connect.s3.format.bytearray.ByteArrayFormat", Is::Bytes),
    ];
    match reader.class("format.class", "Format", &known) {
        Some(Is::Json) => FileFormat::Json { gzip },
        Some(Is::Bytes) => FileFormat::ByteArray { extension, separator, gzip },
        Some(Is::Parquet) => FileFormat::Parquet(codec),
        None => {
            if reader.problems.iter().all(|problem| !problem.starts_with("format.class")) {
                reader.required("format.class", "ParquetFormat, JsonFormat or ByteArrayFormat");
            }
            FileFormat::Parquet(codec)
        }
    }
}

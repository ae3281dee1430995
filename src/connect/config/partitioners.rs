//! `partitioner.class` and the keys of its own.

use super::reader::Reader;
use crate::connect::partitioner::{Extractor, Layout, Partitioner, Pattern, zone};
use jiff::tz::TimeZone;

const HOUR_MS: i64 = 3_600_000;

pub(super) fn timezone(reader: &mut Reader) -> Option<TimeZone> {
    let name = reader.text("timezone")?;
    let zone = zone(&name);
    if zone.is_none() {
        reader.wrong(
            "timezone",
            &name,
            "a name of the time zone database, such as UTC or Europe/Berlin, or an offset such as +02:00",
        );
    }
    zone
}

#[derive(Clone, Copy, PartialEq)]
enum Division {
    Default,
    Field,
    TimeBased,
    Daily,
    Hourly,
}

pub(super) fn read(reader: &mut Reader, timezone: Option<TimeZone>) -> Partitioner {
    let package = [
        ("io.confluent.connect.storage.partitioner.DefaultPartitioner", Division::Default),
        ("io.confluent.connect.storage.partitioner.FieldPartitioner", Division::Field),
        ("io.confluent.connect.storage.partitioner.TimeBasedPartitioner", Division::TimeBased),
        ("io.confluent.connect.storage.partitioner.DailyPartitioner", Division::Daily),
        ("io.confluent.connect.storage.partitioner.HourlyPartitioner", Division::Hourly),
    ];
    let division = reader.class("partitioner.class", "Partitioner", &package).unwrap_or(Division::Default);
    let fields = reader.list("partition.field.name");
    let duration_ms = reader.number("partition.duration.ms", -1, -1..=i64::MAX);
    let path_format = reader.text("path.format");
    let locale = reader.text("locale");
    let extractor = extractor(reader);
    let (duration_ms, format) = match division {
        Division::Default => return Partitioner::Default,
        Division::Field => {
            if fields.is_empty() {
                reader.required("partition.field.name", "the fields of FieldPartitioner, with commas between them");
            }
            return Partitioner::Field(fields);
        }
        Division::Daily => (24 * HOUR_MS, "'year'=YYYY/'month'=MM/'day'=dd".to_owned()),
        Division::Hourly => (HOUR_MS, "'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH".to_owned()),
        Division::TimeBased => {
            if duration_ms <= 0 {
                reader.wrong("partition.duration.ms", &duration_ms.to_string(), "the milliseconds of a directory, more than 0");
            }
            let format = path_format.unwrap_or_else(|| reader.required("path.format", "such as 'year'=YYYY/'month'=MM/'day'=dd"));
            (duration_ms.max(1), format)
        }
    };
    Partitioner::Time(Layout {
        duration_ms,
        pattern: pattern(reader, &format, locale.as_deref()),
        timezone: timezone.unwrap_or_else(|| missing(reader, "timezone", "UTC", TimeZone::UTC)),
        extractor,
    })
}

fn extractor(reader: &mut Reader) -> Extractor {
    let field = reader.text("timestamp.field").unwrap_or_else(|| "timestamp".to_owned());
    let given = reader.text("timestamp.extractor");
    // The maker's own classes may be called by their whole names.
    let class = |name: &str| {
        let short = name.strip_prefix("io.confluent.connect.storage.partitioner.TimeBasedPartitioner$")?;
        short.strip_suffix("TimestampExtractor").map(str::to_owned)
    };
    match given.as_deref().map(|name| class(name).unwrap_or_else(|| name.to_owned())).as_deref() {
        None | Some("Wallclock") => Extractor::Wallclock,
        Some("Record") => Extractor::Record,
        Some("RecordField") => Extractor::RecordField(field),
        Some(other) => {
            reader.wrong("timestamp.extractor", other, "Wallclock, Record or RecordField");
            Extractor::Wallclock
        }
    }
}

fn missing<T>(reader: &mut Reader, key: &str, such_as: &str, default: T) -> T {
    let why = format!("{key} is not set, or wrong: expected the {key} of a partitioner by time, such as {such_as}");
    reader.problems.push(why);
    default
}

fn pattern(reader: &mut Reader, format: &str, locale: Option<&str>) -> Pattern {
    let pattern = Pattern::joda(format.trim_matches('/')).unwrap_or_else(|why| {
        reader.wrong("path.format", format, &why);
        Pattern::default()
    });
    let locale = locale.unwrap_or_else(|| missing(reader, "locale", "en-US", "en"));
    if !locale.to_ascii_lowercase().starts_with("en") && pattern.has_words() {
        reader.wrong("locale", locale, "en, en-US or another English one: path.format has names in it");
    }
    pattern
}

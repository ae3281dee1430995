use super::*;
use crate::connect::record::Part;
use std::borrow::Cow;

fn record(value: &str) -> Record<'static> {
    Record {
        topic: Cow::Borrowed("t"),
        partition: 3,
        offset: 7,
        timestamp: Some(1_709_640_429_045),
        key: Part::default(),
        value: Part { schema: None, value: Some(serde_json::from_str(value).unwrap()) },
    }
}

fn layout(pattern: &str, duration_ms: i64, timezone: &str) -> Partitioner {
    Partitioner::Time(Layout {
        duration_ms,
        pattern: Pattern::joda(pattern).unwrap(),
        timezone: zone(timezone).unwrap(),
        extractor: Extractor::Record,
    })
}

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

#[test]
fn names_of_objects() {
    let names = Names { topics_dir: "my-model/serving".into(), file_delim: "+".into(), pad_width: 10, by_source: false };
    let key = object_key(&names, "my-model", "partition=0", "my-model", (0, 0), ".snappy.parquet");
    assert_eq!(key, "my-model/serving/my-model/partition=0/my-model+0+0000000000.snappy.parquet");
    let names = Names { topics_dir: String::new(), file_delim: "_".into(), pad_width: 3, by_source: false };
    assert_eq!(object_key(&names, "t", "a=b", "s", (12, 12_345), ".json.gz"), "t/a=b/s_12_12345.json.gz");
    let names = Names { pad_width: 0, ..names };
    assert_eq!(object_key(&names, "t", "a", "t", (0, 5), ".bin"), "t/a/t_0_5.bin");
}

#[test]
fn directories_of_fields() {
    let fields = |names: &[&str]| Partitioner::Field(names.iter().map(|name| (*name).to_owned()).collect());
    for (names, value, expected) in [
        (&["country"][..], r#"{"country":"de"}"#, "country=de"),
        (&["country", "n"], r#"{"n":-5,"country":"de"}"#, "country=de/n=-5"),
        (&["ok"], r#"{"ok":true}"#, "ok=true"),
        (&["a.b"], r#"{"a":{"b":1}}"#, "a.b=1"),
        (&["x"], r#"{"x":null}"#, "x=null"),
        (&["x"], r#"{"x":""}"#, "x="),
        (&["x"], r#"{"x":"a/../b"}"#, "x=a%2F..%2Fb"),
        (&["x"], r#"{"x":"a\nb"}"#, "x=a%0Ab"),
        (&["x"], r#"{"x":".."}"#, "x=%2E%2E"),
        (&["x"], r#"{"x":"../../etc"}"#, "x=..%2F..%2Fetc"),
    ] {
        assert_eq!(fields(names).directory(&record(value), 0).unwrap(), expected, "{value}");
    }
    for (value, expected) in
        [(r#"{"y":1}"#, "no such field"), (r#"{"x":1.5}"#, "expected text"), (r#"{"x":[1]}"#, "expected text")]
    {
        let error = fields(&["x"]).directory(&record(value), 0).unwrap_err();
        assert!(error.contains("partition.field.name=x") && error.contains(expected), "{error}");
    }
    assert_eq!(Partitioner::Default.directory(&record("{}"), 0).unwrap(), "partition=3");
}

#[test]
fn directories_of_time() {
    let (hour, day) = (3_600_000, 86_400_000);
    for (pattern, duration, timezone, time, expected) in [
        ("'year'=YYYY/'month'=MM/'day'=dd", day, "UTC", "2024-03-05T12:07:09Z", "year=2024/month=03/day=05"),
        (
            "'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH",
            hour,
            "UTC",
            "2024-03-05T12:59:59.999Z",
            "year=2024/month=03/day=05/hour=12",
        ),
        (
            "'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH",
            hour,
            "America/New_York",
            "2024-03-05T03:00:00Z",
            "year=2024/month=03/day=04/hour=22",
        ),
        ("'day'=dd/'hour'=HH", hour, "Asia/Kolkata", "2024-03-05T03:45:00Z", "day=05/hour=09"),
        // Twenty minutes: the first of the three.
        ("HH-mm", 1_200_000, "UTC", "2024-03-05T12:19:59Z", "12-00"),
        ("HH-mm", 1_200_000, "UTC", "2024-03-05T12:20:00Z", "12-20"),
        // A day of local time, not of UTC.
        ("dd HH", day, "Europe/Berlin", "2024-03-05T23:30:00Z", "06 00"),
        ("dd HH", hour, "+02:00", "2024-03-05T23:30:00Z", "06 01"),
        // Clocks go forward: 02:30 is 03:30.
        ("HH", hour, "Europe/Berlin", "2024-03-31T01:30:00Z", "03"),
        ("YYYY", day, "UTC", "1970-01-01T00:00:00Z", "1970"),
    ] {
        let found = layout(pattern, duration, timezone).directory(&record("{}"), ms(time)).unwrap();
        assert_eq!(found, expected, "{pattern} {timezone} {time}");
    }
    assert_eq!(layout("ZZZ", hour, "Europe/Berlin").directory(&record("{}"), 0).unwrap(), "Europe/Berlin");
    assert_eq!(layout("'..'/YYYY", hour, "UTC").directory(&record("{}"), 0).unwrap(), "%2E%2E/1970");
    assert_eq!(layout("YYYY//MM", hour, "UTC").directory(&record("{}"), 0).unwrap(), "1970/01");
    assert!(layout("YYYY", hour, "UTC").directory(&record("{}"), i64::MAX).unwrap_err().contains("is no time"));
}

#[test]
fn times_of_records() {
    let of = |extractor, value: &str| time_of(&extractor, &record(value), 5);
    let field = |name: &str| Extractor::RecordField(name.to_owned());
    assert_eq!(of(Extractor::Wallclock, "{}"), Ok(5));
    assert_eq!(of(Extractor::Record, "{}"), Ok(1_709_640_429_045));
    for (value, expected) in [
        (r#"{"at":1700000000123}"#, 1_700_000_000_123),
        (r#"{"at":1700000000123.9}"#, 1_700_000_000_123),
        (r#"{"at":"2024-03-05T12:07:09.045Z"}"#, ms("2024-03-05T12:07:09.045Z")),
        (r#"{"at":"2024-03-05T12:07:09+02:00"}"#, ms("2024-03-05T10:07:09Z")),
        (r#"{"at":"2024-03-05T12:07:09"}"#, ms("2024-03-05T12:07:09Z")),
        (r#"{"at":"2024-03-05"}"#, ms("2024-03-05T00:00:00Z")),
    ] {
        assert_eq!(of(field("at"), value), Ok(expected), "{value}");
    }
    assert_eq!(of(field("m.at"), r#"{"m":{"at":9}}"#), Ok(9));
    for value in [r#"{"at":"soon"}"#, r#"{"at":true}"#, r#"{"at":null}"#, "{}"] {
        assert!(of(field("at"), value).unwrap_err().contains("timestamp.field=at"), "{value}");
    }
    let none = Record { timestamp: None, ..record("{}") };
    assert!(time_of(&Extractor::Record, &none, 5).unwrap_err().contains("has no time"));
}

#[test]
fn rotations_are_counted_from_midnight() {
    let next = |now: &str, interval, timezone: &str| {
        let next = next_rotation(ms(now), interval, &zone(timezone).unwrap()).unwrap();
        Timestamp::from_millisecond(next).unwrap().to_string()
    };
    assert_eq!(next("2024-03-05T12:00:07Z", 20_000, "UTC"), "2024-03-05T12:00:20Z");
    assert_eq!(next("2024-03-05T12:00:20Z", 20_000, "UTC"), "2024-03-05T12:00:40Z");
    // Seven hours do not divide a day: the last part is short.
    assert_eq!(next("2024-03-05T22:00:00Z", 25_200_000, "UTC"), "2024-03-06T00:00:00Z");
    assert_eq!(next("2024-03-05T12:00:00Z", 3_600_000, "Asia/Kolkata"), "2024-03-05T12:30:00Z");
    assert_eq!(next("2024-03-05T12:00:00Z", 1_000_000_000_000, "Europe/Berlin"), "2024-03-05T23:00:00Z");
}

//! Names of directories and files of the Parquet layout.
//!
//! `predictions/model_name=<escaped>/date=YYYY-MM-DD/<writer>-<first seq>-<last seq>.parquet`, and `ledger/date=…/…`. The escaping is that of Hive's and Spark's
//! `escapePathName`, which pyarrow, DuckDB and Polars undo as percent-encoding.

use std::fmt::Write as _;

use crate::ledger::LEDGER_MODEL;
use sha2::{Digest, Sha256};

/// The longest directory component in bytes. File systems allow 255; the rest is room for suffixes of tools that copy such a tree.
pub const MAX_COMPONENT_BYTES: usize = 200;

/// The name that Hive gives to the partition of rows whose column is null. Readers turn it into null: DuckDB before it undoes escapes, pyarrow and
/// Polars after, so no escape helps. A model of this name gets a hash at the end, as one that is too long.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

const PREFIX: &str = "model_name=";

/// The directory of the ledger's files.
pub(crate) const LEDGER: &str = "ledger";

/// Micros in a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// The directory component of a model: `model_name=<escaped>`, at most [`MAX_COMPONENT_BYTES`] bytes.
///
/// A longer one, and the one name that readers take for null, is cut between characters (never inside an escape) and ends in `~` and the
/// first 16 hex digits of the name's SHA-256; [`is_cut`] tells, and the files below it then carry the name in the column `model_name_full`.
pub fn model_partition(model_name: &str) -> String {
    let mut component = String::with_capacity(PREFIX.len() + model_name.len());
    component.push_str(PREFIX);
    component.push_str(&escaped(model_name, MAX_COMPONENT_BYTES - PREFIX.len()));
    component
}

/// The directory of all models' files below the store's.
pub const LAYOUT: &str = "predictions";

/// The directory of a model's sealed files below the store's: `predictions/model_name=<escaped>`, and `ledger` for the ledger's entries, which are
/// no predictions and must not be read as such.
pub fn model_directory(model_name: &str) -> String {
    if model_name == LEDGER_MODEL { LEDGER.to_owned() } else { format!("{LAYOUT}/{}", model_partition(model_name)) }
}

/// The file stem of a model in `<dir>/schemas/` and in spools: the value of [`model_partition`], without `model_name=`.
///
/// It is never empty, `.` or `..`, and has no `/`: safe as one path component for any name.
pub fn model_stem(model_name: &str) -> String {
    match model_name {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        name => escaped(name, MAX_COMPONENT_BYTES - PREFIX.len()),
    }
}

/// Whether [`model_partition`] of this name is cut, so that the directory alone does not give the name back.
pub fn is_cut(model_name: &str) -> bool {
    model_name == HIVE_NULL || escaped_len(model_name) > MAX_COMPONENT_BYTES - PREFIX.len()
}

/// The directory component of a UTC day: `date=YYYY-MM-DD` of a time in microseconds since 1970.
///
/// Proleptic Gregorian, as in RFC 3339; a year outside 0000–9999 is written with a sign and six digits (ISO 8601's expanded form).
pub fn date_partition(micros: i64) -> String {
    let (year, month, day) = civil_from_days(micros.div_euclid(DAY_MICROS));
    if (0..=9999).contains(&year) {
        format!("date={year:04}-{month:02}-{day:02}")
    } else {
        format!("date={year:+07}-{month:02}-{day:02}")
    }
}

/// The number of the UTC day that a time in microseconds falls on; day 0 is 1970-01-01.
pub fn day_of(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS)
}

/// A sealed file's name in parts. See [`parse_file_name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// `<process uuid>-<two hex digits of the lane>`.
    pub writer: String,
    /// The writer's smallest sequence number in the file.
    pub first_seq: u64,
    /// The writer's largest sequence number in the file.
    pub last_seq: u64,
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}.parquet", self.writer, self.first_seq, self.last_seq)
    }
}

/// Parses a name that this library gave to a sealed file; `None` for any other.
///
/// Strict, because what parses may be deleted: lower-case hex, decimal numbers without leading zeros, first ≤ last, nothing before or after.
pub fn parse_file_name(name: &str) -> Option<FileName> {
    let stem = name.strip_suffix(".parquet")?;
    let (rest, last) = stem.rsplit_once('-')?;
    let (writer, first) = rest.rsplit_once('-')?;
    let (first_seq, last_seq) = (decimal(first)?, decimal(last)?);
    (is_writer(writer) && first_seq <= last_seq).then(|| FileName { writer: writer.to_owned(), first_seq, last_seq })
}

/// Whether this is the text of a writer: `<uuid>-<two hex digits>`, all in lower case.
pub fn is_writer(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 39
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 | 36 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn decimal(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// What Hive's `FileUtils.escapePathName` (and Spark's `ExternalCatalogUtils`) escapes.
fn needs_escape(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}' | '\u{7f}' | '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '}' | '[' | ']' | '^'
    )
}

fn escaped_len(name: &str) -> usize {
    name.chars().map(|c| if needs_escape(c) { 3 } else { c.len_utf8() }).sum()
}

fn escaped(name: &str, limit: usize) -> String {
    let cut = name == HIVE_NULL || escaped_len(name) > limit;
    // "~" and 16 hex digits.
    let room = if cut { limit - 17 } else { limit };
    let mut out = String::with_capacity(limit.min(name.len() * 3));
    for c in name.chars() {
        let size = if needs_escape(c) { 3 } else { c.len_utf8() };
        if out.len() + size > room {
            break;
        }
        if needs_escape(c) {
            push_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    if cut {
        out.push('~');
        for byte in &Sha256::digest(name.as_bytes())[..8] {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
        }
    }
    out
}

fn push_escape(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = write!(out, "%{:02X}", u32::from(c));
}

/// Howard Hinnant's `civil_from_days`.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_hive_does() {
        assert_eq!(model_partition("wine"), "model_name=wine");
        assert_eq!(model_partition("../a=b c%"), "model_name=..%2Fa%3Db c%25");
        assert_eq!(model_partition("a\0\n\u{7f}\"é😀"), "model_name=a%00%0A%7F%22é😀");
        assert_eq!(model_partition("[x]{y}^*?\\:#'"), "model_name=%5Bx%5D%7By%7D%5E%2A%3F%5C%3A%23%27");
        assert_eq!(model_partition(HIVE_NULL), "model_name=__HIVE_DEFAULT_PARTITION__~8ec3cd044a1b2ac4");
        assert!(is_cut(HIVE_NULL));
    }

    #[test]
    fn a_stem_is_one_safe_path_component() {
        for name in ["", ".", "..", "a/b", "../../etc/passwd", "\0"] {
            let stem = model_stem(name);
            assert!(!stem.is_empty() && stem != "." && stem != ".." && !stem.contains(['/', '\0']), "{name:?} gives {stem:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters_and_stay_distinct() {
        let exact = "a".repeat(MAX_COMPONENT_BYTES - PREFIX.len());
        assert!(!is_cut(&exact));
        assert_eq!(model_partition(&exact).len(), MAX_COMPONENT_BYTES);
        for unit in ["a", "/", "é", "😀"] {
            let (one, two) = (unit.repeat(256 / unit.len()), format!("{}b", unit.repeat(255 / unit.len())));
            assert!(is_cut(&one) && is_cut(&two));
            let (one, two) = (model_partition(&one), model_partition(&two));
            assert!(one.len() <= MAX_COMPONENT_BYTES && two.len() <= MAX_COMPONENT_BYTES);
            assert_ne!(one, two);
            let (head, hash) = one.rsplit_once('~').expect("a cut name has a hash");
            assert_eq!(hash.len(), 16);
            assert_eq!((head.len() - PREFIX.len()) % if unit == "/" { 3 } else { unit.len() }, 0);
        }
    }

    #[test]
    fn dates_agree_with_jiff() {
        for day in (-719_528..2_932_897).step_by(97) {
            let micros = day * DAY_MICROS + 86_399_999_999;
            let time = jiff::Timestamp::from_microsecond(micros).expect("in range");
            assert_eq!(date_partition(micros), format!("date={}", time.to_zoned(jiff::tz::TimeZone::UTC).date()));
        }
        assert_eq!(date_partition(-1), "date=1969-12-31");
        assert_eq!(date_partition(i64::MAX), "date=+294247-01-10");
    }

    #[test]
    fn only_our_own_file_names_parse() {
        let name = "0198c0de-0000-7000-8000-00000000000a-0f-0-41.parquet";
        let parsed = parse_file_name(name).expect("ours");
        assert_eq!(parsed, FileName { writer: "0198c0de-0000-7000-8000-00000000000a-0f".into(), first_seq: 0, last_seq: 41 });
        assert_eq!(parsed.to_string(), name);
        for foreign in [
            "0198c0de-0000-7000-8000-00000000000a-0f-00-41.parquet",
            "0198c0de-0000-7000-8000-00000000000a-0f-42-41.parquet",
            "0198C0DE-0000-7000-8000-00000000000a-0f-0-41.parquet",
            "0198c0de-0000-7000-8000-00000000000a-0f-0-41.parquet.tmp",
            ".0198c0de-0000-7000-8000-00000000000a-0f-0-41.parquet",
            "0198c0de-0000-7000-8000-00000000000a-0f-+0-41.parquet",
            "0198c0de-0000-7000-8000-00000000000a-0f-0-18446744073709551616.parquet",
            "0198c0de-0000-7000-8000-00000000000a-0-41.parquet",
            "part-0.parquet",
            "",
        ] {
            assert_eq!(parse_file_name(foreign), None, "{foreign}");
        }
    }
}

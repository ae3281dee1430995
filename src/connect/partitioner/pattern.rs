//! Patterns of dates: Joda-Time's, as in `path.format`, and those of Java's SimpleDateFormat.

use jiff::Zoned;
use jiff::fmt::strtime;
use std::fmt::Write as _;

/// A pattern that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// What stands there, and how many letters asked for it.
    Field(Field, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Era,
    Century,
    YearOfEra,
    Year,
    WeekYear,
    Week,
    DayOfWeek,
    DayName,
    DayOfYear,
    Month,
    DayOfMonth,
    HalfDay,
    /// 0 to 11.
    Hour11,
    /// 1 to 12.
    Hour12,
    /// 0 to 23.
    Hour23,
    /// 1 to 24.
    Hour24,
    Minute,
    Second,
    Fraction,
    ZoneName,
    Offset,
}

/// Letters that both know, with one meaning.
const COMMON: [(char, Field); 15] = [
    ('G', Field::Era),
    ('w', Field::Week),
    ('E', Field::DayName),
    ('D', Field::DayOfYear),
    ('M', Field::Month),
    ('d', Field::DayOfMonth),
    ('a', Field::HalfDay),
    ('K', Field::Hour11),
    ('h', Field::Hour12),
    ('H', Field::Hour23),
    ('k', Field::Hour24),
    ('m', Field::Minute),
    ('s', Field::Second),
    ('S', Field::Fraction),
    ('z', Field::ZoneName),
];
const JODA: [(char, Field); 6] = [
    ('C', Field::Century),
    ('Y', Field::YearOfEra),
    ('y', Field::Year),
    ('x', Field::WeekYear),
    ('e', Field::DayOfWeek),
    ('Z', Field::Offset),
];
const JAVA: [(char, Field); 4] = [('y', Field::YearOfEra), ('Y', Field::WeekYear), ('u', Field::DayOfWeek), ('Z', Field::Offset)];

impl Pattern {
    /// A pattern of Joda-Time's `DateTimeFormat`.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn joda(text: &str) -> Result<Pattern, String> {
        Pattern::parse(text, &JODA)
    }

    /// A pattern of `java.text.SimpleDateFormat`.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn java(text: &str) -> Result<Pattern, String> {
        Pattern::parse(text, &JAVA)
    }

    fn parse(text: &str, more: &[(char, Field)]) -> Result<Pattern, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(next) = rest.next() {
            if next == '\'' {
                quoted(&mut rest, &mut literal)?;
            } else if next.is_ascii_alphabetic() {
                let mut count = 1;
                while rest.next_if_eq(&next).is_some() {
                    count += 1;
                }
                let field = COMMON.iter().chain(more).find(|(letter, _)| *letter == next).map(|(_, field)| *field);
                let field = field.ok_or_else(|| format!("a pattern of dates: {next} is no letter of it; put text in '…'"))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(field, count));
            } else {
                literal.push(next);
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Pattern { parts })
    }

    /// Whether there are names in it, which depend on the locale.
    pub fn has_words(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Literal(_) => false,
            Part::Field(Field::Month, count) => *count > 2,
            Part::Field(field, _) => matches!(field, Field::DayName | Field::Era | Field::HalfDay | Field::ZoneName),
        })
    }

    /// The text of a time in its zone.
    pub fn format(&self, time: &Zoned) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(field, count) => write_field(&mut out, *field, *count, time),
            }
        }
        out
    }
}

/// Text up to the next quote; two quotes are one.
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, literal: &mut String) -> Result<(), String> {
    if rest.next_if_eq(&'\'').is_some() {
        literal.push('\'');
        return Ok(());
    }
    loop {
        match rest.next() {
            Some('\'') if rest.next_if_eq(&'\'').is_some() => literal.push('\''),
            Some('\'') => return Ok(()),
            Some(char) => literal.push(char),
            None => return Err("a pattern of dates: a quote is not closed".to_owned()),
        }
    }
}

fn write_field(out: &mut String, field: Field, count: usize, time: &Zoned) {
    let year = i64::from(time.year());
    let of_era = if year > 0 { year } else { 1 - year };
    let hour = i64::from(time.hour());
    let week = time.date().iso_week_date();
    let number = match field {
        Field::Year | Field::YearOfEra | Field::WeekYear => {
            let year = match field {
                Field::Year => year,
                Field::YearOfEra => of_era,
                _ => i64::from(week.year()),
            };
            // Two letters are the last two digits.
            if count == 2 { year.rem_euclid(100) } else { year }
        }
        Field::Century => of_era / 100,
        Field::Week => i64::from(week.week()),
        Field::DayOfWeek => i64::from(week.weekday().to_monday_one_offset()),
        Field::DayOfYear => i64::from(time.day_of_year()),
        Field::Month if count <= 2 => i64::from(time.month()),
        Field::DayOfMonth => i64::from(time.day()),
        Field::Hour11 => hour % 12,
        Field::Hour12 => (hour + 11) % 12 + 1,
        Field::Hour23 => hour,
        Field::Hour24 => (hour + 23) % 24 + 1,
        Field::Minute => i64::from(time.minute()),
        Field::Second => i64::from(time.second()),
        Field::Fraction => return fraction(out, count, time),
        Field::Era | Field::DayName | Field::Month | Field::HalfDay | Field::ZoneName | Field::Offset => {
            return write_words(out, field, count, time);
        }
    };
    // Writing to a String cannot fail.
    let _ = write!(out, "{number:0count$}");
}

fn fraction(out: &mut String, count: usize, time: &Zoned) {
    let digits = format!("{:09}", time.subsec_nanosecond());
    // Joda's clock has milliseconds.
    let millis = &digits[..3];
    out.extend(millis.chars().chain(std::iter::repeat('0')).take(count));
}

fn write_words(out: &mut String, field: Field, count: usize, time: &Zoned) {
    let directive = match (field, count) {
        (Field::DayName, 0..=3) => "%a",
        (Field::DayName, _) => "%A",
        (Field::Month, 0..=3) => "%b",
        (Field::Month, _) => "%B",
        (Field::HalfDay, _) => "%p",
        (Field::ZoneName, _) => "%Z",
        (Field::Offset, 1) => "%z",
        (Field::Offset, 2) => "%:z",
        (Field::Offset, _) => {
            let name = time.time_zone().iana_name();
            return out.push_str(name.unwrap_or(&time.offset().to_string()));
        }
        _ => return out.push_str(if time.year() > 0 { "AD" } else { "BC" }),
    };
    // Each directive is one that a time in a zone has.
    out.push_str(&strtime::format(directive, time).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_give_what_joda_gives() {
        let time = at("2024-03-05T13:07:09.045+01:00[Europe/Berlin]");
        for (pattern, expected) in [
            ("'year'=YYYY/'month'=MM/'day'=dd/'hour'=HH", "year=2024/month=03/day=05/hour=13"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "2024-03-05T13:07:09.045"),
            ("YY/M/d/H/m/s", "24/3/5/13/7/9"),
            ("yyyyMMdd", "20240305"),
            ("D", "65"),
            ("DDD", "065"),
            ("EEE EEEE MMM MMMM", "Tue Tuesday Mar March"),
            ("hh K k a", "01 1 13 PM"),
            ("xxxx-'W'ww-e", "2024-W10-2"),
            ("Z ZZ ZZZ", "+0100 +01:00 Europe/Berlin"),
            ("C G", "20 AD"),
            ("'o''clock' ''", "o'clock '"),
            ("S SS SSSSS", "0 04 04500"),
            ("'dt'=YYYY-MM-dd", "dt=2024-03-05"),
        ] {
            assert_eq!(Pattern::joda(pattern).unwrap().format(&time), expected, "{pattern}");
        }
        let midnight = at("2024-12-30T00:00:00+00:00[UTC]");
        assert_eq!(Pattern::joda("K h k H xxxx YYYY ww").unwrap().format(&midnight), "0 12 24 0 2025 2024 01");
        assert_eq!(Pattern::java("yyyyMMdd-YYYY-u").unwrap().format(&midnight), "20241230-2025-1");
    }

    #[test]
    fn a_letter_that_is_none_is_named() {
        assert!(Pattern::joda("year=YYYY").unwrap_err().contains("'…'"));
        assert!(Pattern::joda("Q").unwrap_err().contains("Q is no letter"));
        assert!(Pattern::joda("'open").unwrap_err().contains("quote"));
    }

    #[test]
    fn only_names_depend_on_the_locale() {
        assert!(!Pattern::joda("YYYY/MM/dd/HH").unwrap().has_words());
        assert!(Pattern::joda("MMM").unwrap().has_words() && Pattern::joda("a").unwrap().has_words());
    }
}

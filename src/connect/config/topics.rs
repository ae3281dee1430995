//! `topics` and `topics.regex`.

use super::reader::Reader;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// What a topic's name may have. A hyphen stands last, where brackets take it for itself.
const LEGAL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

pub(super) fn read(reader: &mut Reader) -> Vec<String> {
    let (names, regex) = (reader.list("topics"), reader.text("topics.regex"));
    match regex {
        Some(regex) if !names.is_empty() => {
            reader.wrong("topics.regex", &regex, "either topics or topics.regex, not both");
            names
        }
        None if names.is_empty() => {
            reader.problems.push("topics is not set: expected topics with commas between them, or topics.regex".to_owned());
            names
        }
        None => names,
        // Java's pattern matches the whole name.
        Some(regex) => match regex_syntax::parse(&regex).ok().and_then(|parsed| posix(&parsed)) {
            Some(posix) => vec![format!("^({posix})$")],
            None => {
                reader.wrong("topics.regex", &regex, "a regular expression, without looking ahead or behind");
                names
            }
        },
    }
}

/// Whether the topics, as [`read`] gives them, have this one among them.
pub(super) fn have(topics: &[String], topic: &str) -> bool {
    let matches =
        |known: &String| known == topic || known.starts_with('^') && regex::Regex::new(known).is_ok_and(|it| it.is_match(topic));
    topics.iter().any(matches)
}

/// The same for the names of topics, as librdkafka's matcher takes it, which is POSIX's and knows no `\d` and no `(?:…)`.
/// `None` for what that cannot say.
fn posix(regex: &Hir) -> Option<String> {
    Some(match regex.kind() {
        HirKind::Empty => "()".to_owned(),
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok()?.chars().map(|char| bracket([char])).collect(),
        HirKind::Class(class) => bracket(LEGAL.chars().filter(|char| has(class, *char))),
        HirKind::Look(Look::Start | Look::StartLF) => "^".to_owned(),
        HirKind::Look(Look::End | Look::EndLF) => "$".to_owned(),
        HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => {
            let inner = posix(&repetition.sub)?;
            let times = match (repetition.min, repetition.max) {
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (0, Some(1)) => "?".to_owned(),
                (min, None) => format!("{{{min},}}"),
                (min, Some(max)) => format!("{{{min},{max}}}"),
            };
            // Of a whole name it does not matter which of its matches is found: greedy or not.
            format!("({inner}){times}")
        }
        HirKind::Capture(capture) => format!("({})", posix(&capture.sub)?),
        HirKind::Concat(parts) => parts.iter().map(posix).collect::<Option<String>>()?,
        HirKind::Alternation(parts) => format!("({})", parts.iter().map(posix).collect::<Option<Vec<_>>>()?.join("|")),
    })
}

fn has(class: &Class, char: char) -> bool {
    match class {
        Class::Unicode(class) => class.iter().any(|range| (range.start()..=range.end()).contains(&char)),
        Class::Bytes(class) => class.iter().any(|range| (char::from(range.start())..=char::from(range.end())).contains(&char)),
    }
}

/// A pattern of one of these, as short as it is read in an error. Of none, one that no topic's name matches.
fn bracket(chars: impl IntoIterator<Item = char>) -> String {
    let chars: String = chars.into_iter().filter(|char| LEGAL.contains(*char)).collect();
    match &*chars {
        "" => "[:]".to_owned(),
        LEGAL => ".".to_owned(),
        one if one.len() == 1 && one != "." => chars,
        _ => format!("[{chars}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_java_is_one_of_posix() {
        let said = |regex: &str| posix(&regex_syntax::parse(regex).unwrap());
        assert_eq!(said("a.b").as_deref(), Some("a.b"));
        assert_eq!(said(r"m-v\d+").as_deref(), Some("m-v([0123456789])+"));
        assert_eq!(said(r"(?:a|b\.c)?x{2,3}").as_deref(), Some("((a|b[.]c))?(x){2,3}"));
        assert_eq!(said(r"a\b"), None);
    }

    #[test]
    fn whose_whole_name_matches_is_among_them() {
        let reader = &mut Reader::new([("topics.regex".to_owned(), r"models\.v\d+|(?i)wine[^x]".to_owned())].into());
        let topics = read(reader);
        assert!(reader.problems.is_empty(), "{:?}", reader.problems);
        let found: Vec<_> = ["models.v12", "modelsxv1", "models.v1x", "WINE-", "winex", "models.v"]
            .into_iter()
            .filter(|name| have(&topics, name))
            .collect();
        assert_eq!(found, ["models.v12", "WINE-"]);
        let reader = &mut Reader::new([("topics.regex".to_owned(), "a(?=b)".to_owned())].into());
        read(reader);
        assert!(reader.problems[0].contains("without looking ahead"), "{:?}", reader.problems);
    }
}

//! A body into rows, each on its own: one that is wrong costs only itself.

use super::body::Form;
use serde_json::value::RawValue;

/// What stands where a row was expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A row's text. In NDJSON it may not be JSON.
    Row(&'a str),
    /// One row is not text.
    Bad(String),
    /// From here on there is nothing that can be read.
    Rest(String),
}

/// Some editors and programs begin a text with it; JSON's readers may pass over it (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rows of a body.
pub(super) fn rows(body: &[u8], form: Form) -> Result<Rows<'_>, String> {
    let start = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    match form {
        Form::Ndjson => Ok(Rows::Lines { rest: &body[start..], line: 0, offset: start }),
        Form::Json => {
            let text = simdutf8::compat::from_utf8(body)
                .map_err(|error| format!("the body is not UTF-8: byte_offset={}", error.valid_up_to()))?;
            let at = skip_space(text, start);
            if text[at..].starts_with('[') {
                Ok(Rows::Elements { text, at: at + 1, state: Expect::FirstOrEnd })
            } else {
                Ok(Rows::Elements { text, at, state: if at == text.len() { Expect::Nothing } else { Expect::Single } })
            }
        }
    }
}

/// An iterator over a body's rows.
#[derive(Debug)]
pub(super) enum Rows<'a> {
    Lines { rest: &'a [u8], line: usize, offset: usize },
    Elements { text: &'a str, at: usize, state: Expect },
}

/// What may come next in a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// The one object.
    Single,
    /// An element, or the end of the array.
    FirstOrEnd,
    /// A comma, or the end of the array.
    CommaOrEnd,
    /// Only white space.
    EndOfBody,
    Nothing,
}

impl Rows<'_> {
    /// The body is one object, not an array and not lines: a header that names the request names it.
    pub(super) fn is_single(&self) -> bool {
        matches!(self, Rows::Elements { state: Expect::Single, .. })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Rows::Lines { rest, line, offset } => next_line(rest, line, offset),
            Rows::Elements { text, at, state } => next_element(text, at, state),
        }
    }
}

fn next_line<'a>(rest: &mut &'a [u8], line: &mut usize, offset: &mut usize) -> Option<Item<'a>> {
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (this, after) = rest.split_at(end);
        let start = *offset;
        *rest = after;
        *offset += end;
        *line += 1;
        // Empty lines are no rows: many writers end with one.
        let this = this.trim_ascii();
        if !this.is_empty() {
            return Some(match simdutf8::compat::from_utf8(this) {
                Ok(text) => Item::Row(text),
                Err(error) => Item::Bad(format!("line={line} is not UTF-8: byte_offset={}", start + error.valid_up_to())),
            });
        }
    }
    None
}

fn next_element<'a>(text: &'a str, at: &mut usize, state: &mut Expect) -> Option<Item<'a>> {
    *at = skip_space(text, *at);
    let next = text.as_bytes().get(*at);
    match (*state, next) {
        (Expect::Nothing, _) | (Expect::EndOfBody, None) => None,
        (Expect::FirstOrEnd | Expect::CommaOrEnd, Some(b']')) => {
            *at += 1;
            *state = Expect::EndOfBody;
            next_element(text, at, state)
        }
        (Expect::Single, _) => Some(value(text, at, state, Expect::EndOfBody)),
        (Expect::FirstOrEnd, _) => Some(value(text, at, state, Expect::CommaOrEnd)),
        (Expect::CommaOrEnd, Some(b',')) => {
            *at = skip_space(text, *at + 1);
            Some(value(text, at, state, Expect::CommaOrEnd))
        }
        (Expect::CommaOrEnd, _) => {
            *state = Expect::Nothing;
            Some(Item::Rest(format!("not JSON: expected `,` or `]` at byte_offset={at}")))
        }
        (Expect::EndOfBody, Some(_)) => {
            *state = Expect::Nothing;
            let hint = "send several rows as an array, or as lines with content-type application/x-ndjson";
            Some(Item::Rest(format!("not JSON: expected the end of the body at byte_offset={at}; {hint}")))
        }
    }
}

/// One value, found without recursion.
fn value<'a>(text: &'a str, at: &mut usize, state: &mut Expect, then: Expect) -> Item<'a> {
    let rest = &text[*at..];
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&'a RawValue>();
    match values.next() {
        Some(Ok(value)) => {
            *at += values.byte_offset();
            *state = then;
            Item::Row(value.get())
        }
        Some(Err(error)) => {
            *state = Expect::Nothing;
            Item::Rest(format!("not JSON: {error}, counted from byte_offset={at}"))
        }
        None => {
            *state = Expect::Nothing;
            Item::Rest(format!("not JSON: the body ends at byte_offset={at}, inside the array"))
        }
    }
}

/// The first place from `at` on that is not JSON's white space.
fn skip_space(text: &str, at: usize) -> usize {
    let rest = &text.as_bytes()[at..];
    at + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str, form: Form) -> Vec<String> {
        rows(body.as_bytes(), form)
            .unwrap()
            .map(|item| match item {
                Item::Row(text) => text.to_owned(),
                Item::Bad(error) => format!("bad: {error}"),
                Item::Rest(error) => format!("rest: {error}"),
            })
            .collect()
    }

    #[test]
    fn an_array_gives_its_elements_and_an_object_itself() {
        assert_eq!(of(" [ {\"a\":[1,\"]\"]} , 2,\"x\" ] ", Form::Json), ["{\"a\":[1,\"]\"]}", "2", "\"x\""]);
        assert_eq!(of("{\"a\":1}\n", Form::Json), ["{\"a\":1}"]);
        assert!(of("[]", Form::Json).is_empty() && of(" ", Form::Json).is_empty());
    }

    #[test]
    fn what_stands_before_a_syntax_error_is_kept() {
        for (body, kept) in [
            ("[1,2", 2),
            ("[1,2,", 2),
            ("[1 2]", 1),
            ("[1,{\"a\":]", 1),
            ("[1]x", 1),
            ("{}{}", 1),
            ("[", 0),
            ("[,1]", 0),
            ("{", 0),
        ] {
            let rows = of(body, Form::Json);
            assert_eq!(rows.len(), kept + 1, "{body}: {rows:?}");
            assert!(rows[kept].starts_with("rest: not JSON") && rows[kept].contains("byte_offset="), "{body}: {rows:?}");
        }
    }

    #[test]
    fn lines_stand_alone() {
        assert_eq!(of("{}\r\n\n  \n[1\n\"x\"", Form::Ndjson), ["{}", "[1", "\"x\""]);
        let bad: Vec<_> = rows(b"{}\n\"\xff\"\n{}", Form::Ndjson).unwrap().collect();
        assert_eq!(bad[1], Item::Bad("line=2 is not UTF-8: byte_offset=4".to_owned()));
        assert_eq!(bad.len(), 3);
        assert!(rows(b"[\"\xff\"]", Form::Json).unwrap_err().contains("byte_offset=2"));
    }
}

//! How far a topic partition is stored, as the consumer group keeps it: an offset, and a text beside it.

use super::topic::TopicId;
use std::fmt;

/// What begins each text of ours: a group that another program used before has another, or none.
const MARK: &str = "predlog";

/// How far a topic partition is stored.
///
/// The offset says what is stored, the text what is being stored: `end` is committed before the first object of a range is put, so whoever
/// takes the partition over after a crash makes the same objects again, and no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Everything before it is stored. `None`: nothing was ever committed.
    pub offset: Option<i64>,
    /// A state of the format lies beside the objects, as of `offset`.
    pub state: bool,
    /// The range from `offset` to before this is being stored.
    pub end: Option<i64>,
    /// The offset is the table's, not the group's: a state may lie there or not.
    pub from_table: bool,
    /// The topic whose offset this is, of all that had its name.
    pub topic: Option<TopicId>,
}

impl Position {
    /// From what the group has committed. A text that is not ours says nothing.
    pub fn parse(offset: i64, text: &str) -> Position {
        let mut position = Position { offset: Some(offset), ..Position::default() };
        let mut words = text.split(' ');
        if words.next() == Some(MARK) {
            for word in words {
                match word.split_once('=') {
                    Some(("end", end)) => position.end = end.parse().ok().filter(|end| *end > offset),
                    Some(("state", "1")) => position.state = true,
                    Some(("topic", id)) => position.topic = TopicId::parse(id),
                    _ => {}
                }
            }
        }
        position
    }
}

/// The text beside the offset.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)?;
        if self.state {
            f.write_str(" state=1")?;
        }
        if let Some(topic) = self.topic {
            write!(f, " topic={topic}")?;
        }
        self.end.map_or(Ok(()), |end| write!(f, " end={end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_its_text() {
        for (state, end) in [(false, None), (true, None), (false, Some(43)), (true, Some(i64::MAX))] {
            let topic = end.and_then(|_| TopicId::parse("00000000c0ffee00000000000000002a"));
            let position = Position { offset: Some(42), state, end, topic, ..Position::default() };
            assert_eq!(Position::parse(42, &position.to_string()), position);
        }
    }

    #[test]
    fn a_text_that_is_not_ours_says_nothing() {
        for text in ["", "connect-worker", "predlogs end=50", "predlog end=42", "predlog end=x later=1", "end=50"] {
            assert_eq!(Position::parse(42, text), Position { offset: Some(42), ..Position::default() }, "{text}");
        }
    }
}

//! Column types from lines.
//!
//! A field's type is that of most of its values; of two that are as frequent, the one seen first. Integers alone make `Int64`; integers and
//! other numbers, `Double`. `-0` counts as a double, since no integer holds it. The strings `NaN`, `Infinity` and `-Infinity` count as doubles,
//! unless the field has other strings: then they are strings like those. Nulls, empty lists and empty objects say nothing.

use super::decode::keys::{Found, Keys};
use super::decode::scan::{Cursor, Syntax};
use super::decode::{ENVELOPE, LineError, Slot, end, invalid_utf8, sentinel, skip_fast};
use super::schema::{BARE_FIELD, ColumnType, Field, MAX_DEPTH, MAX_LEAVES, ModelSchema, Side, name_is_usable};

/// How many fields are told apart in one inference; those that come later have no column. Wider than a schema, since fields may lose.
const MAX_NODES: usize = 4 * MAX_LEAVES;

/// Counts the types of the values seen in the lines of a model.
#[derive(Debug, Default)]
pub struct Inference {
    sides: [Top; 2],
    envelope: Envelope,
    nodes: usize,
    scratch: String,
}

#[derive(Debug)]
struct Envelope(Keys);

impl Default for Envelope {
    fn default() -> Self {
        Envelope(Keys::new(ENVELOPE.iter().map(|(name, _)| *name)))
    }
}

/// Top level values: objects, and all others.
#[derive(Debug, Default)]
struct Top {
    fields: Fields,
    bare: Node,
}

#[derive(Debug, Default)]
struct Fields {
    keys: Keys,
    names: Vec<String>,
    nodes: Vec<Node>,
}

/// The kinds that conflict with each other.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Number,
    Text,
    List,
    Struct,
}

/// What was seen in one place.
#[derive(Debug, Default)]
struct Node {
    /// Per [`Kind`]: how many values, and how many of any kind were seen before the first.
    seen: [(u64, u64); 5],
    total: u64,
    /// Numbers that only a double holds.
    doubles: u64,
    /// The sentinels of numbers that are not finite, and when the first was seen.
    sentinels: (u64, u64),
    element: Option<Box<Node>>,
    fields: Option<Box<Fields>>,
}

impl Inference {
    /// An inference that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a line.
    ///
    /// # Errors
    /// The line is not UTF-8, not JSON, or not an object. What comes before the fault may have been counted.
    pub fn push_line(&mut self, line: &[u8]) -> Result<(), LineError> {
        match simdutf8::basic::from_utf8(line) {
            Ok(text) => self.push_str(text),
            Err(_) => Err(invalid_utf8(line)),
        }
    }

    /// As [`push_line`](Self::push_line), for text that is known to be UTF-8.
    ///
    /// # Errors
    /// The line is not JSON, or not an object. What comes before the fault may have been counted.
    pub fn push_str(&mut self, line: &str) -> Result<(), LineError> {
        let mut cursor = Cursor::new(line);
        cursor.skip_space();
        if cursor.peek() != Some(b'{') {
            cursor.skip_value()?;
            end(&mut cursor)?;
            return Err(LineError::NotAnObject);
        }
        let mut previous = None;
        if cursor.enter(b'}') {
            loop {
                match self.envelope.0.read(previous, &mut cursor, &mut self.scratch)? {
                    Found::Known(at) => {
                        previous = Some(at);
                        if let Slot::Side(side) = ENVELOPE[at].1 {
                            let budget = &mut Budget { nodes: &mut self.nodes, scratch: &mut self.scratch };
                            self.sides[side].push(&mut cursor, budget)?;
                        } else {
                            skip_fast(&mut cursor)?;
                        }
                    }
                    Found::Unknown | Found::Unnameable => {
                        cursor.skip_value()?;
                    }
                }
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        Ok(end(&mut cursor)?)
    }

    /// The types so far, within the limits of a schema.
    pub fn schema(&self) -> ModelSchema {
        let [inputs, outputs] = &self.sides;
        let inferred = ModelSchema { inputs: inputs.side(), outputs: outputs.side() };
        let mut schema = ModelSchema::default();
        schema.merge(&inferred);
        schema
    }
}

/// What is left to spend, and a scratch string.
struct Budget<'a> {
    nodes: &'a mut usize,
    scratch: &'a mut String,
}

impl Top {
    fn push(&mut self, cursor: &mut Cursor<'_>, budget: &mut Budget<'_>) -> Result<(), Syntax> {
        if cursor.peek() == Some(b'{') { self.fields.push(cursor, 1, budget) } else { self.bare.push(cursor, 1, budget) }
    }

    /// When there are both, objects win the name `value` if they have such a field.
    fn side(&self) -> Side {
        let mut fields = self.fields.types();
        let value = self.bare.kind();
        let bare = value.is_known() && !fields.iter().any(|field| field.name == BARE_FIELD && field.kind.is_known());
        if bare {
            fields.retain(|field| field.name != BARE_FIELD);
            fields.push(Field { name: BARE_FIELD.to_owned(), kind: value });
        }
        Side { bare, fields }
    }
}

impl Fields {
    /// Counts the fields of the object at the cursor, whose values `depth` containers enclose.
    fn push(&mut self, cursor: &mut Cursor<'_>, depth: usize, budget: &mut Budget<'_>) -> Result<(), Syntax> {
        if !cursor.enter(b'}') {
            return Ok(());
        }
        let mut previous = None;
        loop {
            let at = match self.keys.read(previous, cursor, budget.scratch)? {
                Found::Known(at) => Some(at),
                Found::Unknown if *budget.nodes < MAX_NODES && name_is_usable(budget.scratch) => {
                    *budget.nodes += 1;
                    self.names.push(budget.scratch.clone());
                    self.nodes.push(Node::default());
                    Some(self.keys.push(budget.scratch))
                }
                Found::Unknown | Found::Unnameable => None,
            };
            match at {
                Some(at) => {
                    self.nodes[at].push(cursor, depth, budget)?;
                    previous = Some(at);
                }
                None => {
                    cursor.skip_value()?;
                }
            }
            if !cursor.more(b'}', "',' or '}'")? {
                return Ok(());
            }
        }
    }

    fn types(&self) -> Vec<Field> {
        self.names.iter().zip(&self.nodes).map(|(name, node)| Field { name: name.clone(), kind: node.kind() }).collect()
    }
}

impl Node {
    #[inline]
    fn count(&mut self, kind: Kind) {
        let (count, first) = &mut self.seen[kind as usize];
        if *count == 0 {
            *first = self.total;
        }
        *count += 1;
        self.total += 1;
    }

    /// Counts the value at the cursor, which `depth` containers enclose.
    fn push(&mut self, cursor: &mut Cursor<'_>, depth: usize, budget: &mut Budget<'_>) -> Result<(), Syntax> {
        match cursor.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let (number, _) = cursor.number()?;
                self.doubles += u64::from(number.float || (number.negative && number.mantissa == 0 && number.digits == 1));
                self.count(Kind::Number);
            }
            Some(b'"') => {
                if sentinel(&cursor.string()?).is_none() {
                    self.count(Kind::Text);
                } else {
                    if self.sentinels.0 == 0 {
                        self.sentinels.1 = self.total;
                    }
                    self.sentinels.0 += 1;
                    self.total += 1;
                }
            }
            Some(b't' | b'f') => {
                cursor.literal()?;
                self.count(Kind::Bool);
            }
            Some(bracket @ (b'{' | b'[')) if depth < MAX_DEPTH => return self.push_container(bracket, cursor, depth + 1, budget),
            _ => {
                cursor.skip_value()?;
            }
        }
        Ok(())
    }

    fn push_container(
        &mut self,
        bracket: u8,
        cursor: &mut Cursor<'_>,
        depth: usize,
        budget: &mut Budget<'_>,
    ) -> Result<(), Syntax> {
        if bracket == b'{' {
            self.fields.get_or_insert_default().push(cursor, depth, budget)?;
            self.count(Kind::Struct);
            return Ok(());
        }
        self.count(Kind::List);
        let element = self.element.get_or_insert_default();
        if cursor.enter(b']') {
            loop {
                element.push(cursor, depth, budget)?;
                if !cursor.more(b']', "',' or ']'")? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn kind(&self) -> ColumnType {
        let mut seen = self.seen;
        // Sentinels go to the strings, if there are any, else to the numbers.
        let joined = if seen[Kind::Text as usize].0 > 0 { Kind::Text } else { Kind::Number };
        if self.sentinels.0 > 0 {
            let (count, first) = &mut seen[joined as usize];
            *first = if *count == 0 { self.sentinels.1 } else { (*first).min(self.sentinels.1) };
            *count += self.sentinels.0;
        }
        let kinds = [
            ColumnType::Bool,
            if self.doubles + self.sentinels.0 > 0 { ColumnType::Double } else { ColumnType::Int64 },
            ColumnType::String,
            ColumnType::List(Box::new(self.element.as_ref().map_or(ColumnType::Unknown, |element| element.kind()))),
            ColumnType::Struct(self.fields.as_ref().map_or_else(Vec::new, |fields| fields.types())),
        ];
        let settled = kinds.into_iter().zip(seen).filter(|(kind, (count, _))| *count > 0 && kind.is_known());
        settled
            .max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)))
            .map_or(ColumnType::Unknown, |(kind, _)| kind)
    }
}

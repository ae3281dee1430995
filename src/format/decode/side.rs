//! The columns of `inputs` or of `outputs`, with the raw JSON of the rows that they do not hold exactly.

use arrow_array::{ArrayRef, StringArray};
use arrow_schema::ArrowError;

use super::column::{Context, Structs};
use super::scan::{Cursor, Syntax};
use super::values::Texts;
use crate::format::schema::{BARE_FIELD, ColumnType, MAX_DEPTH, Side};

#[derive(Debug)]
pub(crate) struct SideColumns {
    structs: Option<Structs>,
    /// Shorter than the rows, until a row has its raw JSON kept.
    raw: Texts,
    rows: usize,
    /// The field that holds values which are not objects.
    bare: Option<usize>,
    /// Whether a field `value` of objects is settled, so that bare values never get a column.
    never_bare: bool,
    /// Whether it has fields that never get one. Where there is no other, none is looked for: the next file finds what is new.
    has_foreign: bool,
}

impl SideColumns {
    pub fn new(side: &Side) -> Self {
        let mut settled = side.fields.iter().filter(|field| field.kind.is_known());
        let value = settled.position(|field| field.name == BARE_FIELD);
        let bare = value.filter(|_| side.bare);
        let structs = Structs::new(&side.fields, 1).map(|structs| structs.reserving(bare));
        let has_foreign = side.fields.iter().any(|field| field.kind == ColumnType::Foreign);
        SideColumns { structs, raw: Texts::new(), rows: 0, bare, never_bare: value.is_some() && !side.bare, has_foreign }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Decodes the value at the cursor as the next row's. Clears `context.exact` if its raw JSON had to be kept.
    pub fn decode(&mut self, cursor: &mut Cursor<'_>, context: &mut Context) -> Result<(), Syntax> {
        let outer = std::mem::replace(&mut context.exact, true);
        let start = cursor.pos;
        let first = cursor.peek();
        match (&mut self.structs, first, self.bare) {
            (Some(structs), Some(b'{'), _) => {
                structs.make_up(self.rows);
                structs.decode(cursor, context)?;
            }
            (Some(structs), Some(byte), Some(bare)) if byte != b'n' => {
                structs.make_up(self.rows);
                structs.decode_bare(bare, cursor, context)?;
            }
            _ => {
                let skipped = cursor.skip_value()?;
                context.exact = skipped.null;
                // An object's keys are enclosed by it; a bare value by the struct that would hold it.
                let depth = if first == Some(b'{') { 0 } else { 1 };
                let could_be_column = skipped.scalar_depth.is_some_and(|below| depth + below <= MAX_DEPTH);
                context.new_field |= could_be_column && !self.has_foreign && (first == Some(b'{') || !self.never_bare);
            }
        }
        if !context.exact {
            self.raw.resize(self.rows);
            self.raw.push(cursor.since(start));
        }
        self.rows += 1;
        context.exact &= outer;
        Ok(())
    }

    /// Cuts back to so many rows, or makes up for those whose lines had no such key.
    #[inline(never)]
    pub fn resize(&mut self, rows: usize) {
        if let Some(structs) = &mut self.structs {
            structs.resize(rows);
        }
        if self.raw.len() > rows {
            self.raw.resize(rows);
        }
        self.rows = rows;
    }

    /// The struct, if any field is settled, and the raw JSON.
    pub fn finish(&mut self) -> Result<(Option<ArrayRef>, StringArray), ArrowError> {
        self.resize(self.rows);
        self.raw.resize(self.rows);
        self.rows = 0;
        Ok((self.structs.as_mut().map(Structs::finish).transpose()?, self.raw.finish()?))
    }
}

//! `inputs` or `outputs`: an object's fields, or a value that is none in a field of its own.

use super::fields::{Context, Fields};
use super::{Nullable, Wire};
use crate::format::decode::scan::{Cursor, Syntax};
use crate::format::schema::{self, BARE_FIELD, MAX_DEPTH};

/// `inputs` or `outputs`.
#[derive(Debug)]
pub(crate) struct Side {
    fields: Option<Box<Fields>>,
    nullable: Nullable,
    /// The field that holds values which are not objects.
    bare: Option<usize>,
    /// Whether a field `value` of objects is settled, so that bare values never get a column.
    never_bare: bool,
}

impl Side {
    /// The fields for the settled columns.
    pub(crate) fn of(side: &schema::Side) -> Self {
        Side::new(Fields::of(&side.fields, 1), Nullable::First, side.bare)
    }

    /// These fields; `bare` says whether their field `value` holds values that are not objects.
    pub(crate) fn new(fields: Option<Fields>, nullable: Nullable, bare: bool) -> Self {
        let value = fields.as_ref().and_then(|fields| fields.position(BARE_FIELD));
        let reserved = value.filter(|_| bare);
        let fields = fields.map(|fields| Box::new(fields.reserving(reserved)));
        Side { fields, nullable, bare: reserved, never_bare: value.is_some() && !bare }
    }

    /// The columns that these fields are.
    pub(crate) fn columns(&self) -> schema::Side {
        let fields = self.fields.as_ref().map_or_else(Vec::new, |fields| fields.columns());
        schema::Side { bare: self.bare.is_some(), fields }
    }

    /// Whether there is a field of this name to be written: else all is in the raw JSON.
    pub(crate) fn has_fields(&self) -> bool {
        self.fields.is_some()
    }

    /// How a line without such a key is written.
    pub(super) fn write_missing<W: Wire>(&self, out: &mut Vec<u8>) -> bool {
        self.fields.is_none() || W::null(out, self.nullable)
    }

    /// Writes the value at the cursor. Its raw JSON must be kept if `context.exact` is cleared.
    pub(super) fn write<W: Wire>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, Syntax> {
        context.exact = true;
        let start = out.len();
        let whole = match (&mut self.fields, cursor.peek(), self.bare) {
            (Some(fields), Some(b'{'), _) => {
                W::some(out, self.nullable);
                fields.write::<W>(cursor, context, out)?
            }
            (Some(fields), Some(byte), Some(bare)) if byte != b'n' => {
                W::some(out, self.nullable);
                fields.write_bare::<W>(bare, cursor, context, out)?
            }
            (_, first, _) => {
                let skipped = cursor.skip_value()?;
                context.exact = skipped.null;
                // An object's keys are enclosed by it; a bare value by the struct that would hold it.
                let depth = if first == Some(b'{') { 0 } else { 1 };
                let could_be_column = skipped.scalar_depth.is_some_and(|below| depth + below <= MAX_DEPTH);
                context.new_field |= could_be_column && (first == Some(b'{') || !self.never_bare);
                return Ok(self.write_missing::<W>(out));
            }
        };
        if whole {
            return Ok(true);
        }
        context.exact = false;
        out.truncate(start);
        Ok(W::null(out, self.nullable))
    }
}

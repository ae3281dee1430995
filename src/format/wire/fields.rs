//! The typed fields of `inputs` and `outputs`, and how a JSON value becomes one.
//!
//! It follows `decode/`, which fills Arrow's columns: a value that its field does not hold exactly is written as null, or as the nearest that it can
//! hold, and clears [`Context::exact`].

use std::collections::HashSet;

use super::{Nullable, Wire};
use crate::format::decode::keys::{Found, Keys};
use crate::format::decode::scan::{Cursor, Syntax};
use crate::format::decode::sentinel;
use crate::format::schema::{self, ColumnType, MAX_DEPTH, name_is_usable};

/// What is known of the line that is being written.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Whether the fields hold all that was read since this was set.
    pub(super) exact: bool,
    /// Whether a value was met that a schema inferred anew would have a column for.
    pub(super) new_field: bool,
    pub(super) scratch: String,
}

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Double,
    Text,
    List(Box<Slot>),
    Struct(Box<Fields>),
    /// A type of somebody else's schema that no JSON is written as.
    Foreign,
}

/// A place for a value.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    pub(crate) nullable: Nullable,
}

#[derive(Debug)]
struct Named {
    name: String,
    /// The name as a JSON key, with its colon.
    quoted: Box<[u8]>,
    slot: Slot,
}

/// The fields of an object, in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Fields {
    keys: Keys,
    fields: Vec<Named>,
    /// Siblings' names in lower case: see [`crate::format::schema::ModelSchema::merge`].
    taken: HashSet<String>,
    /// How many containers enclose the values.
    depth: usize,
    /// A field that objects have no key for: bare values are in it.
    reserved: Option<usize>,
}

impl Kind {
    /// The kind for a settled type; `None` if nothing in it is. `depth` containers enclose its values.
    pub(crate) fn of(kind: &ColumnType, depth: usize) -> Option<Kind> {
        let nullable = Nullable::First;
        Some(match kind {
            ColumnType::Unknown | ColumnType::Foreign => return None,
            ColumnType::Bool => Kind::Bool,
            ColumnType::Int64 => Kind::Int64,
            ColumnType::Double => Kind::Double,
            ColumnType::String => Kind::Text,
            ColumnType::List(element) => Kind::List(Box::new(Slot { kind: Kind::of(element, depth + 1)?, nullable })),
            ColumnType::Struct(fields) => Kind::Struct(Box::new(Fields::of(fields, depth + 1)?)),
        })
    }

    /// The type of the column.
    pub(crate) fn column_type(&self) -> ColumnType {
        match self {
            Kind::Bool => ColumnType::Bool,
            Kind::Int32 | Kind::Int64 => ColumnType::Int64,
            Kind::Double => ColumnType::Double,
            Kind::Text => ColumnType::String,
            Kind::List(element) => ColumnType::List(Box::new(element.kind.column_type())),
            Kind::Struct(fields) => ColumnType::Struct(fields.columns()),
            Kind::Foreign => ColumnType::Unknown,
        }
    }
}

impl Slot {
    /// Writes the value at the cursor. False, with nothing written, if the field can neither hold it nor be null.
    pub(super) fn write<W: Wire>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, Syntax> {
        let start = out.len();
        W::some(out, self.nullable);
        let written = match (&mut self.kind, cursor.peek()) {
            (Kind::Double, Some(b'-' | b'0'..=b'9')) => {
                let (number, text) = cursor.number()?;
                let (value, exact) = number.as_f64(text);
                context.exact &= exact;
                value.is_finite() && W::double(out, value, &mut context.exact)
            }
            (Kind::Double, Some(b'"')) => match sentinel(&cursor.string()?) {
                Some(value) => W::double(out, value, &mut context.exact),
                None => false,
            },
            (kind @ (Kind::Int64 | Kind::Int32), Some(b'-' | b'0'..=b'9')) => {
                let (number, text) = cursor.number()?;
                let value = number.as_i64(text).filter(|&value| matches!(kind, Kind::Int64) || i32::try_from(value).is_ok());
                value.inspect(|&value| W::int(out, value)).is_some()
            }
            (Kind::Text, Some(b'"')) => W::text(out, &cursor.string()?, &mut context.scratch),
            (Kind::Bool, Some(b't' | b'f')) => cursor.literal()?.inspect(|&value| W::bool(out, value)).is_some(),
            (Kind::Struct(fields), Some(b'{')) => fields.write::<W>(cursor, context, out)?,
            (Kind::List(element), Some(b'[')) => element.write_list::<W>(cursor, context, out)?,
            _ => {
                context.exact &= cursor.skip_value()?.null;
                out.truncate(start);
                return Ok(W::null(out, self.nullable));
            }
        };
        if written {
            return Ok(true);
        }
        context.exact = false;
        out.truncate(start);
        Ok(W::null(out, self.nullable))
    }

    /// Writes the array at the cursor, whose elements are this.
    fn write_list<W: Wire>(&mut self, cursor: &mut Cursor<'_>, context: &mut Context, out: &mut Vec<u8>) -> Result<bool, Syntax> {
        W::begin_list(out);
        let (start, mut elements, mut whole) = (out.len(), 0, true);
        if cursor.enter(b']') {
            loop {
                W::element(out);
                whole &= self.write::<W>(cursor, context, out)?;
                elements += 1;
                if !cursor.more(b']', "',' or ']'")? {
                    break;
                }
            }
        }
        W::end_list(out, start, elements);
        Ok(whole)
    }
}

impl Fields {
    /// Fields for the settled columns; `None` if there are none. `depth` containers enclose the values.
    pub(crate) fn of(columns: &[schema::Field], depth: usize) -> Option<Fields> {
        let slots = columns.iter().filter_map(|column| {
            let slot = Slot { kind: Kind::of(&column.kind, depth)?, nullable: Nullable::First };
            Some((column.name.clone(), slot))
        });
        Some(Fields::new(slots, depth)).filter(|fields| !fields.fields.is_empty())
    }

    /// Fields in the order in which they are written.
    pub(crate) fn new(slots: impl IntoIterator<Item = (String, Slot)>, depth: usize) -> Fields {
        let (mut keys, mut fields, mut taken) = (Keys::default(), Vec::new(), HashSet::new());
        for (name, slot) in slots {
            keys.push(&name);
            taken.insert(name.to_lowercase());
            let mut quoted = Vec::with_capacity(name.len() + 3);
            crate::json::escape::write_str(&mut quoted, &name);
            quoted.push(b':');
            fields.push(Named { name, quoted: quoted.into(), slot });
        }
        Fields { keys, fields, taken, depth, reserved: None }
    }

    /// The place of the field of this name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Keeps a field for bare values: an object's key of that name is unknown.
    pub(super) fn reserving(self, field: Option<usize>) -> Self {
        Fields { reserved: field, ..self }
    }

    /// The columns that these are.
    pub(crate) fn columns(&self) -> Vec<schema::Field> {
        let columns =
            self.fields.iter().map(|field| schema::Field { name: field.name.clone(), kind: field.slot.kind.column_type() });
        columns.filter(|column| column.kind.is_known()).collect()
    }

    /// Writes the object at the cursor. Most have their keys in the order of the fields, with some left out: these are read once.
    pub(super) fn write<W: Wire>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, Syntax> {
        let (start, written, exact) = (cursor.pos, out.len(), context.exact);
        if let Some(whole) = self.write_in_order::<W>(cursor, context, out)? {
            return Ok(whole);
        }
        cursor.pos = start;
        out.truncate(written);
        context.exact = exact;
        self.write_in_any_order::<W>(cursor, context, out)
    }

    /// `None` if a key comes behind a later field's, or twice.
    fn write_in_order<W: Wire>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<Option<bool>, Syntax> {
        W::begin_struct(out);
        let (mut next, mut previous, mut whole) = (0, None, true);
        if cursor.enter(b'}') {
            loop {
                match self.keys.read(previous, cursor, &mut context.scratch)? {
                    Found::Known(at) if Some(at) == self.reserved => self.unknown(cursor, context, false)?,
                    Found::Known(at) if at < next => return Ok(None),
                    Found::Known(at) => {
                        for field in &self.fields[next..at] {
                            whole &= W::missing(out, field.slot.nullable);
                        }
                        let field = &mut self.fields[at];
                        W::key(out, &field.quoted);
                        whole &= field.slot.write::<W>(cursor, context, out)?;
                        (next, previous) = (at + 1, Some(at));
                    }
                    Found::Unknown => {
                        let usable = self.could_be_column(&context.scratch);
                        self.unknown(cursor, context, usable)?;
                    }
                    Found::Unnameable => self.unknown(cursor, context, false)?,
                }
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        for field in &self.fields[next..] {
            whole &= W::missing(out, field.slot.nullable);
        }
        W::end_struct(out);
        Ok(Some(whole))
    }

    /// As [`write_in_order`](Self::write_in_order), which has seen the unknown keys: finds the values first. Of two under one key the last counts.
    #[inline(never)]
    fn write_in_any_order<W: Wire>(
        &mut self,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, Syntax> {
        let mut found = vec![None; self.fields.len()];
        let mut previous = None;
        if cursor.enter(b'}') {
            loop {
                match self.keys.read(previous, cursor, &mut context.scratch)? {
                    Found::Known(at) if Some(at) != self.reserved => {
                        context.exact &= found[at].replace(cursor.pos).is_none();
                        cursor.skip_value()?;
                        previous = Some(at);
                    }
                    Found::Unknown => {
                        let usable = self.could_be_column(&context.scratch);
                        self.unknown(cursor, context, usable)?;
                    }
                    _ => self.unknown(cursor, context, false)?,
                }
                if !cursor.more(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        let end = cursor.pos;
        let mut whole = true;
        W::begin_struct(out);
        for (field, found) in self.fields.iter_mut().zip(found) {
            whole &= match found {
                Some(at) => {
                    cursor.pos = at;
                    W::key(out, &field.quoted);
                    field.slot.write::<W>(cursor, context, out)?
                }
                None => W::missing(out, field.slot.nullable),
            };
        }
        W::end_struct(out);
        cursor.pos = end;
        Ok(whole)
    }

    /// Writes the value at the cursor, which is not an object, as the only field.
    pub(super) fn write_bare<W: Wire>(
        &mut self,
        bare: usize,
        cursor: &mut Cursor<'_>,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, Syntax> {
        let mut whole = true;
        W::begin_struct(out);
        for (at, field) in self.fields.iter_mut().enumerate() {
            whole &= if at == bare {
                W::key(out, &field.quoted);
                field.slot.write::<W>(cursor, context, out)?
            } else {
                W::missing(out, field.slot.nullable)
            };
        }
        W::end_struct(out);
        Ok(whole)
    }

    fn could_be_column(&self, name: &str) -> bool {
        name_is_usable(name) && !self.taken.contains(&name.to_lowercase())
    }

    #[inline(never)]
    fn unknown(&self, cursor: &mut Cursor<'_>, context: &mut Context, usable: bool) -> Result<(), Syntax> {
        let skipped = cursor.skip_value()?;
        context.exact &= skipped.null;
        context.new_field |= usable && skipped.scalar_depth.is_some_and(|below| self.depth + below <= MAX_DEPTH);
        Ok(())
    }
}

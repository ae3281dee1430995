//! Lines to messages of a typed format, without a tree between: the same columns as Parquet's, a message for each line.
//!
//! A format says how values are written ([`Wire`]); what is written is decided here, and is what `ARCHITECTURE.md` says of columns: typed fields for
//! `inputs` and `outputs`, and the whole raw JSON beside them when the fields do not hold all of it.

#![cfg_attr(not(feature = "avro"), allow(dead_code, unused_imports, reason = "connect-json knows no schemas but its own"))]

mod fields;
mod learn;
mod line;
mod names;
mod side;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use fields::{Fields, Kind, Slot};
pub(crate) use learn::Learner;
pub(crate) use line::{Lines, Row, Value, for_each_entry};
pub(crate) use names::{record_name, usable_name};
pub(crate) use side::Side;

use super::decode::scan::RawStr;

/// What a line became, beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// The id of the schema that it was written with, in the Schema Registry.
    pub(crate) schema_id: Option<u32>,
}

/// Why a line is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// Its schema is not known yet: the record must wait. With what it waits for.
    NotYet(String),
    /// It will never be one.
    Unencodable(String),
}

/// Which branch of a field's union is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nullable {
    Never,
    First,
    Second,
}

/// How a format writes values. Each method appends; those that answer say whether the format has such a value, and if not, what they have appended
/// is cut off again.
pub(crate) trait Wire {
    fn null(out: &mut Vec<u8>, nullable: Nullable) -> bool;
    /// A field that an object lacks.
    fn missing(out: &mut Vec<u8>, nullable: Nullable) -> bool;
    /// A value that is not null follows.
    fn some(out: &mut Vec<u8>, nullable: Nullable);
    fn bool(out: &mut Vec<u8>, value: bool);
    fn int(out: &mut Vec<u8>, value: i64);
    /// Clears `exact` if the format loses something of the value, such as the sign of zero.
    fn double(out: &mut Vec<u8>, value: f64, exact: &mut bool) -> bool;
    /// What a JSON string denotes.
    fn text(out: &mut Vec<u8>, text: &RawStr<'_>, scratch: &mut String) -> bool;
    fn begin_list(out: &mut Vec<u8>);
    /// Another element follows.
    fn element(out: &mut Vec<u8>);
    /// The elements are what was appended from `start` on.
    fn end_list(out: &mut Vec<u8>, start: usize, elements: usize);
    fn begin_struct(out: &mut Vec<u8>);
    /// The value of the field follows; `quoted` is its name as a JSON key, with its colon.
    fn key(out: &mut Vec<u8>, quoted: &[u8]);
    fn end_struct(out: &mut Vec<u8>);
}

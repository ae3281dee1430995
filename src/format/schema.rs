//! The sticky column types of a model.
//!
//! What a column was first, it stays: files of a model agree, and a table over all of them has one schema. A value that does not fit is kept in
//! the JSON column beside the struct, so nothing is lost by it.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields};
use serde::{Deserialize, Serialize};

/// How many containers (structs and lists, the top level included) may enclose a value that has a column.
pub const MAX_DEPTH: usize = 8;
/// How many leaf columns the `inputs` and `outputs` of one model may have together.
pub const MAX_LEAVES: usize = 2_000;
/// The longest field name, in bytes, that becomes a column.
pub const MAX_NAME_BYTES: usize = 256;

/// The name of the field that holds a top level value which is not an object.
pub const BARE_FIELD: &str = "value";

/// The type of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Only nulls, empty lists or empty objects so far. Not written as a column.
    #[default]
    Unknown,
    /// `true` and `false`.
    Bool,
    /// Integers that fit 64 bits with a sign.
    Int64,
    /// IEEE 754 doubles.
    Double,
    /// UTF-8 text.
    String,
    /// An array whose elements are of one type.
    List(Box<ColumnType>),
    /// An object.
    Struct(Vec<Field>),
    /// Of another writer's table, of a type that no value here has. Not written as a column, and never another type: values stay in the JSON column.
    Foreign,
}

/// A named column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The key in the JSON object.
    pub name: String,
    /// What the column holds.
    #[serde(rename = "type")]
    pub kind: ColumnType,
}

/// The columns of `inputs` or of `outputs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Whether the field `value` holds top level values that are not objects. An object's own key `value` then stays in the JSON column.
    #[serde(default)]
    pub bare: bool,
    /// The columns, oldest first.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// The column types of a model. Serialises to `<dir>/schemas/<model>.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSchema {
    /// Columns of `inputs`.
    #[serde(default)]
    pub inputs: Side,
    /// Columns of `outputs`.
    #[serde(default)]
    pub outputs: Side,
}

impl ColumnType {
    /// Whether this has at least one leaf whose type is settled, and so is written to files.
    pub fn is_known(&self) -> bool {
        match self {
            ColumnType::Unknown | ColumnType::Foreign => false,
            ColumnType::List(element) => element.is_known(),
            ColumnType::Struct(fields) => fields.iter().any(|field| field.kind.is_known()),
            _ => true,
        }
    }

    /// Whether it stays as it is.
    pub(crate) fn is_settled(&self) -> bool {
        *self == ColumnType::Foreign || self.is_known()
    }

    /// The number of leaves that are written.
    pub fn leaves(&self) -> usize {
        match self {
            ColumnType::Unknown | ColumnType::Foreign => 0,
            ColumnType::List(element) => element.leaves(),
            ColumnType::Struct(fields) => fields.iter().map(|field| field.kind.leaves()).sum(),
            _ => 1,
        }
    }

    /// The Arrow type; `None` while nothing in it is settled.
    pub fn arrow(&self) -> Option<DataType> {
        Some(match self {
            ColumnType::Unknown | ColumnType::Foreign => return None,
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::Double => DataType::Float64,
            ColumnType::String => DataType::Utf8,
            ColumnType::List(element) => DataType::List(Arc::new(ArrowField::new("element", element.arrow()?, true))),
            ColumnType::Struct(fields) => DataType::Struct(arrow_fields(fields)?),
        })
    }
}

fn arrow_fields(fields: &[Field]) -> Option<Fields> {
    let known: Fields = fields.iter().filter_map(|field| Some(ArrowField::new(&field.name, field.kind.arrow()?, true))).collect();
    (!known.is_empty()).then_some(known)
}

impl Side {
    /// The Arrow struct type; `None` while no field is settled.
    pub fn arrow(&self) -> Option<DataType> {
        arrow_fields(&self.fields).map(DataType::Struct)
    }

    /// The number of leaf columns.
    pub fn leaves(&self) -> usize {
        self.fields.iter().map(|field| field.kind.leaves()).sum()
    }
}

impl ModelSchema {
    /// Whether no column is settled yet.
    pub fn is_empty(&self) -> bool {
        self.leaves() == 0
    }

    /// The number of leaf columns of both sides.
    pub fn leaves(&self) -> usize {
        self.inputs.leaves() + self.outputs.leaves()
    }

    /// Takes in what was inferred from newer data: new fields at the end, unknown types resolved, settled types left as they are.
    ///
    /// Returns whether files written from now on have columns that those before had not. Fields past [`MAX_DEPTH`], [`MAX_LEAVES`] or
    /// [`MAX_NAME_BYTES`], with an empty name, or with the name of a sibling but for upper and lower case (which DuckDB and Spark do not tell
    /// apart) get no column.
    pub fn merge(&mut self, inferred: &ModelSchema) -> bool {
        let mut room = MAX_LEAVES.saturating_sub(self.leaves());
        let before = room;
        // Outputs are few, and must not be crowded out by wide inputs.
        merge_side(&mut self.outputs, &inferred.outputs, &mut room);
        merge_side(&mut self.inputs, &inferred.inputs, &mut room);
        room != before
    }
}

fn merge_side(side: &mut Side, newer: &Side, room: &mut usize) {
    if newer.bare && !side.bare {
        // The field `value` can mean an object's key or a bare value, not both: what it was first, it stays.
        if side.fields.iter().any(|field| field.name.to_lowercase() == BARE_FIELD) {
            let others: Vec<Field> = newer.fields.iter().filter(|field| field.name != BARE_FIELD).cloned().collect();
            return merge_fields(&mut side.fields, &others, 1, room);
        }
        side.bare = true;
    } else if side.bare && !newer.bare {
        let others: Vec<Field> = newer.fields.iter().filter(|field| field.name != BARE_FIELD).cloned().collect();
        return merge_fields(&mut side.fields, &others, 1, room);
    }
    merge_fields(&mut side.fields, &newer.fields, 1, room);
}

/// Merges the fields of a struct that `depth` containers enclose, itself included.
fn merge_fields(fields: &mut Vec<Field>, newer: &[Field], depth: usize, room: &mut usize) {
    let mut index: std::collections::HashMap<String, usize> =
        fields.iter().enumerate().map(|(at, field)| (field.name.to_lowercase(), at)).collect();
    for field in newer {
        match index.get(&field.name.to_lowercase()) {
            Some(&at) if fields[at].name == field.name => merge_type(&mut fields[at].kind, &field.kind, depth, room),
            Some(_) => {}
            None if !name_is_usable(&field.name) => {}
            None => {
                let mut kind = ColumnType::Unknown;
                merge_type(&mut kind, &field.kind, depth, room);
                if kind.is_known() {
                    index.insert(field.name.to_lowercase(), fields.len());
                    fields.push(Field { name: field.name.clone(), kind });
                }
            }
        }
    }
}

fn merge_type(kind: &mut ColumnType, newer: &ColumnType, depth: usize, room: &mut usize) {
    if !newer.is_known() {
        return;
    }
    match (&mut *kind, newer) {
        (ColumnType::Struct(fields), ColumnType::Struct(more)) => merge_fields(fields, more, depth + 1, room),
        (ColumnType::List(element), ColumnType::List(other)) => merge_type(element, other, depth + 1, room),
        (settled, _) if settled.is_settled() => {}
        (_, ColumnType::Struct(more)) if depth < MAX_DEPTH => {
            let mut fields = Vec::new();
            merge_fields(&mut fields, more, depth + 1, room);
            if !fields.is_empty() {
                *kind = ColumnType::Struct(fields);
            }
        }
        (_, ColumnType::List(other)) if depth < MAX_DEPTH => {
            let mut element = ColumnType::Unknown;
            merge_type(&mut element, other, depth + 1, room);
            if element.is_known() {
                *kind = ColumnType::List(Box::new(element));
            }
        }
        (_, ColumnType::Struct(_) | ColumnType::List(_)) => {}
        (unknown, scalar) if *room > 0 => {
            *room -= 1;
            *unknown = scalar.clone();
        }
        _ => {}
    }
}

/// Whether a column can have this name.
pub(crate) fn name_is_usable(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES
}

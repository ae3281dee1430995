//! Our columns as a Delta table has them, where another of its writers was first.

use crate::config::UploadSettings;
use crate::delta::{DeltaSettings, DeltaTable};
use crate::format::schema::{ColumnType, Field, ModelSchema};
use arrow_schema::{DataType, Fields, Schema, SchemaRef};
use parking_lot::Mutex;

/// The columns of the table that the predictions become part of.
pub(super) struct TableColumns {
    store: UploadSettings,
    /// Opened when it is asked for.
    table: Mutex<Option<DeltaTable>>,
}

impl TableColumns {
    pub fn new(store: UploadSettings) -> Self {
        TableColumns { store, table: Mutex::default() }
    }

    /// As the newest version has them; `None` while there is no table.
    ///
    /// # Errors
    /// The table does not answer.
    pub fn newest(&self) -> Result<Option<SchemaRef>, String> {
        let mut table = self.table.lock();
        if table.is_none() {
            *table = DeltaTable::open_if_there(&self.store, DeltaSettings::default()).map_err(|error| error.to_string())?;
        }
        table.as_ref().map(|table| table.newest_schema().map_err(|error| error.to_string())).transpose()
    }
}

/// Gives the columns of `schema` the types that they have in the table, where those are others: a value that does not fit is kept in the JSON column, as
/// after a change of type. One of a type that no value of ours has, or whose name differs in upper and lower case alone, gets none. Returns whether any changed.
pub(super) fn conform(schema: &mut ModelSchema, table: &Schema) -> bool {
    let mut changed = false;
    for (name, side) in [("inputs", &mut schema.inputs), ("outputs", &mut schema.outputs)] {
        if let Ok(field) = table.field_with_name(name)
            && let DataType::Struct(columns) = field.data_type()
        {
            changed |= conform_fields(&mut side.fields, columns);
        }
    }
    changed
}

fn conform_fields(fields: &mut [Field], columns: &Fields) -> bool {
    let mut changed = false;
    for field in fields {
        let lower = field.name.to_lowercase();
        let kind = match columns.iter().find(|column| column.name().to_lowercase() == lower) {
            None => continue,
            Some(column) if *column.name() != field.name => ColumnType::Foreign,
            Some(column) => conformed(&field.kind, column.data_type()),
        };
        changed |= kind != field.kind;
        field.kind = kind;
    }
    changed
}

fn conformed(ours: &ColumnType, column: &DataType) -> ColumnType {
    let kind = match (ours, column) {
        (ColumnType::Struct(fields), DataType::Struct(columns)) => {
            let mut fields = fields.clone();
            conform_fields(&mut fields, columns);
            ColumnType::Struct(fields)
        }
        (ColumnType::List(element), DataType::List(column)) => ColumnType::List(Box::new(conformed(element, column.data_type()))),
        (_, DataType::Boolean) => ColumnType::Bool,
        (_, DataType::Int64) => ColumnType::Int64,
        (_, DataType::Float64) => ColumnType::Double,
        (_, DataType::Utf8) => ColumnType::String,
        _ => ColumnType::Foreign,
    };
    // What holds nothing but such columns holds nothing.
    if kind.is_known() { kind } else { ColumnType::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::decode::arrow_schema;
    use crate::format::decode::{Fit, RowDecoder};
    use crate::format::infer::Inference;
    use arrow_array::cast::AsArray as _;
    use arrow_schema::{Field as ArrowField, TimeUnit};
    use std::sync::Arc;

    const LINE: &str = r#"{"timestamp":"2026-11-23T03:34:18.123456Z","inputs":{"n":1,"at":"x","Age":3,"deep":{"a":1,"b":"t"},"list":[{"c":1}],"only":{"d":1},"ours":true},"outputs":0.5}"#;

    fn column(name: &str, kind: DataType) -> ArrowField {
        ArrowField::new(name, kind, true)
    }

    fn nested(columns: Vec<ArrowField>) -> DataType {
        DataType::Struct(columns.into())
    }

    fn table() -> Schema {
        let list = |kind| DataType::List(Arc::new(column("element", kind)));
        let inputs = nested(vec![
            column("n", DataType::Utf8),
            column("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            column("age", DataType::Int64),
            column("deep", nested(vec![column("a", DataType::Float64), column("c", DataType::Utf8)])),
            column("list", list(nested(vec![column("c", DataType::Int32)]))),
            column("only", nested(vec![column("d", DataType::Date32)])),
        ]);
        Schema::new(vec![column("id", DataType::Utf8), column("inputs", inputs), column("outputs", DataType::Utf8)])
    }

    fn inferred(line: &str) -> ModelSchema {
        let mut inference = Inference::new();
        inference.push_str(line).unwrap();
        inference.schema()
    }

    #[test]
    fn columns_are_the_tables_and_what_does_not_fit_is_beside_them() {
        let mut schema = inferred(LINE);
        assert!(conform(&mut schema, &table()));
        assert!(!conform(&mut schema, &table()), "they are the table's already");
        let kinds: Vec<_> = schema.inputs.fields.iter().map(|field| (field.name.as_str(), field.kind.clone())).collect();
        let field = |name: &str, kind| Field { name: name.to_owned(), kind };
        assert_eq!(
            kinds,
            [
                ("n", ColumnType::String),
                ("at", ColumnType::Foreign),
                ("Age", ColumnType::Foreign),
                ("deep", ColumnType::Struct(vec![field("a", ColumnType::Double), field("b", ColumnType::String)])),
                ("list", ColumnType::Foreign),
                ("only", ColumnType::Foreign),
                ("ours", ColumnType::Bool),
            ]
        );
        // Nothing of it is news: it would have a column in the next file, and never gets one.
        let (mut again, before) = (schema.clone(), schema.clone());
        assert!(!again.merge(&inferred(LINE)));
        assert_eq!(again, before);
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<ModelSchema>(&json).unwrap(), schema);
        let mut decoder = RowDecoder::new(&schema);
        assert_eq!(decoder.push_str(LINE), Ok(Fit::Raw));
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.schema(), arrow_schema(&schema));
        let inputs = batch.column_by_name("inputs").unwrap().as_struct();
        assert_eq!(inputs.column_names(), ["n", "deep", "ours"]);
        assert!(inputs.column_by_name("n").unwrap().is_null(0));
        assert!(batch.column_by_name("inputs_json").unwrap().as_string::<i32>().value(0).starts_with(r#"{"n":1,"at":"x","#));
    }

    #[test]
    fn where_no_column_is_left_a_row_is_no_news_either() {
        let line = r#"{"timestamp":"2026-11-23T03:34:18.123456Z","inputs":{"at":"x"},"outputs":0.5}"#;
        let mut schema = inferred(line);
        conform(&mut schema, &table());
        let mut decoder = RowDecoder::new(&schema);
        assert_eq!(decoder.push_str(line), Ok(Fit::Raw));
        assert!(decoder.finish().unwrap().column_by_name("inputs").is_none());
    }
}

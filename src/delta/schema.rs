//! The table's columns: Arrow's types as Delta's, and columns that are added.

use super::DeltaError;
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Fields, Schema as ArrowSchema, TimeUnit};
use delta_kernel::engine::arrow_conversion::TryFromArrow;
use delta_kernel::schema::{ArrayType, DataType, MapType, StructField, StructType};
use std::sync::Arc;

/// Delta's columns of an Arrow schema, all of them nullable.
///
/// # Errors
/// A type that Delta has not.
pub(super) fn delta_schema(schema: &ArrowSchema) -> Result<StructType, DeltaError> {
    let plain = ArrowSchema::new(schema.fields().iter().map(|field| plain(field)).collect::<Fields>());
    StructType::try_from_arrow(&plain).map_err(|error| DeltaError::Table(format!("columns cannot be Delta's: {error}")))
}

/// The same field as Delta's conversion takes it: nullable, without metadata of a file, and UTC by its name.
fn plain(field: &ArrowField) -> Arc<ArrowField> {
    Arc::new(ArrowField::new(field.name(), plain_type(field.data_type()), true))
}

fn plain_type(kind: &ArrowType) -> ArrowType {
    match kind {
        ArrowType::Timestamp(unit, Some(zone)) if matches!(&**zone, "+00:00" | "UTC" | "Z") => {
            ArrowType::Timestamp(*unit, Some("UTC".into()))
        }
        // Kernel takes seconds for no time of Delta's, and no file of ours has them.
        ArrowType::Timestamp(TimeUnit::Second, zone) => ArrowType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        ArrowType::Struct(fields) => ArrowType::Struct(fields.iter().map(|field| plain(field)).collect()),
        ArrowType::List(element) => ArrowType::List(plain(element)),
        ArrowType::LargeList(element) => ArrowType::LargeList(plain(element)),
        other => other.clone(),
    }
}

/// The table's columns with those that only `files` has, at any depth; `None` when there are none.
///
/// # Errors
/// A column whose type in the files is another than in the table, or whose name differs from another's in upper and lower case alone.
pub(super) fn merge(table: &StructType, files: &StructType) -> Result<Option<StructType>, DeltaError> {
    merge_struct(table, files, "")
}

fn merge_struct(table: &StructType, files: &StructType, path: &str) -> Result<Option<StructType>, DeltaError> {
    let mut fields: Vec<StructField> = table.fields().cloned().collect();
    let mut grown = false;
    for file in files.fields() {
        let name = if path.is_empty() { file.name().clone() } else { format!("{path}.{}", file.name()) };
        let lower = file.name().to_lowercase();
        match fields.iter_mut().find(|field| field.name().to_lowercase() == lower) {
            None => {
                fields.push(StructField::nullable(file.name(), file.data_type.clone()));
                grown = true;
            }
            Some(field) if field.name() != file.name() => {
                return Err(conflict(&name, &format!("a column named {:?}", field.name()), "another case of that name"));
            }
            Some(field) => {
                if let Some(merged) = merge_type(&field.data_type, &file.data_type, &name)? {
                    field.data_type = merged;
                    grown = true;
                }
            }
        }
    }
    let schema = || StructType::try_new(fields).map_err(|error| DeltaError::Table(format!("columns cannot be Delta's: {error}")));
    grown.then(schema).transpose()
}

fn merge_type(table: &DataType, file: &DataType, path: &str) -> Result<Option<DataType>, DeltaError> {
    match (table, file) {
        (DataType::Struct(table), DataType::Struct(file)) => Ok(merge_struct(table, file, path)?.map(DataType::from)),
        (DataType::Array(table), DataType::Array(file)) => {
            let element = merge_type(&table.element_type, &file.element_type, &format!("{path}.element"))?;
            Ok(element.map(|element| ArrayType::new(element, table.contains_null).into()))
        }
        (DataType::Map(table), DataType::Map(file)) => {
            if table.key_type != file.key_type {
                return Err(conflict(&format!("{path}.key"), &table.key_type.to_string(), &file.key_type.to_string()));
            }
            let value = merge_type(&table.value_type, &file.value_type, &format!("{path}.value"))?;
            Ok(value.map(|value| MapType::new(table.key_type.clone(), value, table.value_contains_null).into()))
        }
        _ if table == file => Ok(None),
        _ => Err(conflict(path, &table.to_string(), &file.to_string())),
    }
}

fn conflict(column: &str, table: &str, files: &str) -> DeltaError {
    DeltaError::ColumnType { column: column.to_owned(), table: table.to_owned(), files: files.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: Vec<ArrowField>) -> StructType {
        delta_schema(&ArrowSchema::new(fields)).unwrap()
    }

    fn nested(fields: Vec<ArrowField>) -> ArrowType {
        ArrowType::Struct(fields.into())
    }

    #[test]
    fn columns_are_added_at_any_depth_and_in_lists() {
        let field = |name: &str, kind: ArrowType| ArrowField::new(name, kind, true);
        let list = |kind: ArrowType| ArrowType::List(Arc::new(ArrowField::new("element", kind, true)));
        let table = schema(vec![
            field("id", ArrowType::Utf8),
            field(
                "inputs",
                nested(vec![field("a", ArrowType::Int64), field("l", list(nested(vec![field("x", ArrowType::Int64)])))]),
            ),
        ]);
        let files = schema(vec![
            field(
                "inputs",
                nested(vec![field("l", list(nested(vec![field("y", ArrowType::Utf8)]))), field("b", ArrowType::Float64)]),
            ),
            field("outputs", nested(vec![field("score", ArrowType::Float64)])),
        ]);
        let merged = merge(&table, &files).unwrap().unwrap();
        let expected = schema(vec![
            field("id", ArrowType::Utf8),
            field(
                "inputs",
                nested(vec![
                    field("a", ArrowType::Int64),
                    field("l", list(nested(vec![field("x", ArrowType::Int64), field("y", ArrowType::Utf8)]))),
                    field("b", ArrowType::Float64),
                ]),
            ),
            field("outputs", nested(vec![field("score", ArrowType::Float64)])),
        ]);
        assert_eq!(merged, expected);
        assert_eq!(merge(&merged, &files).unwrap(), None);
    }

    #[test]
    fn another_type_is_an_error_that_names_column_and_types() {
        let table = schema(vec![ArrowField::new("inputs", nested(vec![ArrowField::new("age", ArrowType::Int64, true)]), true)]);
        let other = schema(vec![ArrowField::new("inputs", nested(vec![ArrowField::new("age", ArrowType::Utf8, true)]), true)]);
        let message = merge(&table, &other).unwrap_err().to_string();
        assert!(message.contains("inputs.age") && message.contains("long") && message.contains("string"), "{message}");
        let case = schema(vec![ArrowField::new("INPUTS", ArrowType::Utf8, true)]);
        assert!(merge(&table, &case).unwrap_err().to_string().contains("INPUTS"));
    }
}

//! The bounds of a file's columns, by which readers pass files over.

use parquet::basic::{LogicalType, TimeUnit};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Map, Value, json};

/// Columns that get bounds: as many leaves as Delta's own writers look at.
const MAX_COLUMNS: usize = 32;
/// Longer texts get no bounds: they would have to be cut, and rounded up.
const MAX_TEXT: usize = 64;

/// What is known of a file's rows. The maps have the columns' names, and maps for structs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// How many there are.
    pub rows: u64,
    /// The smallest value of a column.
    pub min: Map<String, Value>,
    /// The largest value of a column.
    pub max: Map<String, Value>,
    /// How many rows of a column are null.
    pub null_count: Map<String, Value>,
}

/// The bounds of one column in one row group.
struct Bounds {
    min: Value,
    max: Value,
    nulls: u64,
}

impl Stats {
    /// Reads them from a Parquet file's footer: integers, doubles, times and short texts of the first 32 leaves that are no lists or maps.
    pub fn of(metadata: &ParquetMetaData) -> Self {
        let mut stats = Stats { rows: u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0), ..Stats::default() };
        let columns = metadata.file_metadata().schema_descr().columns();
        let plain = columns.iter().enumerate().filter(|(_, column)| column.max_rep_level() == 0);
        for (at, column) in plain.take(MAX_COLUMNS) {
            let groups = metadata.row_groups().iter();
            let bounds: Option<Vec<Bounds>> =
                groups.map(|group| bounds(column, group.column(at).statistics()?, group.num_rows())).collect();
            let Some(bounds) = bounds.filter(|bounds| !bounds.is_empty()) else { continue };
            let path = column.path().parts();
            // What is null everywhere in a group says nothing of the bounds.
            let some = || bounds.iter().filter(|bounds| !bounds.min.is_null());
            if let Some(min) = some().map(|bounds| &bounds.min).min_by(|a, b| compare(a, b)) {
                insert(&mut stats.min, path, rounded(column, min, false));
            }
            if let Some(max) = some().map(|bounds| &bounds.max).max_by(|a, b| compare(a, b)) {
                insert(&mut stats.max, path, rounded(column, max, true));
            }
            insert(&mut stats.null_count, path, json!(bounds.iter().map(|bounds| bounds.nulls).sum::<u64>()));
        }
        stats
    }

    /// The text in an `add` action.
    pub(super) fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("numRecords".into(), json!(self.rows));
        for (key, columns) in [("minValues", &self.min), ("maxValues", &self.max), ("nullCount", &self.null_count)] {
            if !columns.is_empty() {
                map.insert(key.into(), Value::Object(columns.clone()));
            }
        }
        Value::Object(map).to_string()
    }
}

fn bounds(column: &ColumnDescriptor, statistics: &Statistics, rows: i64) -> Option<Bounds> {
    let nulls = statistics.null_count_opt()?;
    let (min, max) = match statistics {
        _ if u64::try_from(rows).is_ok_and(|rows| rows == nulls) => (Value::Null, Value::Null),
        Statistics::Int32(values) if column.logical_type_ref().is_none() => (json!(values.min_opt()?), json!(values.max_opt()?)),
        Statistics::Int64(values) => (json!(values.min_opt()?), json!(values.max_opt()?)),
        // A NaN is in no bounds, and the footer does not say that there is one: doubles say how many are null, no more.
        Statistics::Double(_) | Statistics::Float(_) | Statistics::Boolean(_) => (Value::Null, Value::Null),
        Statistics::ByteArray(values) if values.min_is_exact() && values.max_is_exact() => {
            let text =
                |bytes: &[u8]| std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_TEXT).map(|text| json!(text));
            (text(values.min_opt()?.data())?, text(values.max_opt()?.data())?)
        }
        _ => return None,
    };
    Some(Bounds { min, max, nulls })
}

fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    }
}

/// A time has milliseconds in Delta's bounds: the lower is rounded down, the upper up. All others stand for themselves.
fn rounded(column: &ColumnDescriptor, value: &Value, up: bool) -> Value {
    let (Some(LogicalType::Timestamp(kind)), Some(micros)) = (column.logical_type_ref(), value.as_i64()) else {
        return value.clone();
    };
    if kind.unit != TimeUnit::MICROS {
        return Value::Null;
    }
    let millis = if up { micros.saturating_add(999).div_euclid(1_000) } else { micros.div_euclid(1_000) };
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => json!(time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()),
        Err(_) => Value::Null,
    }
}

fn insert(map: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        if !value.is_null() {
            map.insert(first.clone(), value);
        }
        return;
    }
    if let Value::Object(inner) = map.entry(first.clone()).or_insert_with(|| Value::Object(Map::new())) {
        insert(inner, rest, value);
    }
}

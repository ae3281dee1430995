//! How the columns are written to Parquet.
//!
//! PLAIN for doubles, DELTA_BINARY_PACKED for 64-bit integers, no dictionary for strings that are different in every row, and one for all others.
//! `benches/columns.rs` measures all of it together, not one encoding against another. All of it is in the format's version 2.9
//! and is read by pyarrow, DuckDB, Polars and Spark 3.4 and later.

use std::collections::BTreeMap;
use std::fs::File;

use arrow_schema::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// The file's key of the exact model name.
pub const MODEL_NAME_KEY: &str = "predlog.model_name";
/// The file's key of the version of predlog that wrote it.
pub const VERSION_KEY: &str = "predlog.version";
/// The file's key of the sequence ranges in it: a JSON object of writer to `[[first, last], …]`.
pub const WRITERS_KEY: &str = "predlog.writers";

/// How many ranges of one writer a file names. Past it, the smallest gaps between them are closed.
pub const MAX_RANGES: usize = 1_000;

/// Columns whose values are different in nearly every row.
const UNIQUE: [&str; 5] = ["id", "request_id", "traceparent", "inputs_json", "outputs_json"];

/// Rows of a bloom filter at most: 160 KiB at its false positive rate. There is one for each row group, which ends by its bytes and has seldom more.
const MAX_BLOOM_ROWS: u64 = 1 << 17;

/// A row group is closed when its encoded pages, or the memory that the writer takes, pass these.
pub(crate) const ROW_GROUP_BYTES: usize = 6 << 20;
pub(crate) const WRITER_MEMORY: usize = 8 << 20;

/// How rows follow each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the column `timestamp`, rising: the file says so.
    Timestamp,
    /// As they came, which is nearly by time.
    AsTheyCame,
}

/// The properties of a file of at most `rows` rows in a row group.
///
/// # Errors
/// The schema has a type that Parquet has not; no schema of [`super::decode::arrow_schema`] has.
pub fn writer_properties(
    schema: &SchemaRef,
    model_name: &str,
    rows: u64,
    order: Order,
) -> Result<WriterProperties, ParquetError> {
    let columns = ArrowSchemaConverter::new().convert(schema)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("predlog ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_write_batch_size(8_192)
        .set_data_page_row_count_limit(65_536)
        .set_max_row_group_row_count(None)
        // At the end, which is the default, all of a file's filters wait in memory.
        .set_bloom_filter_position(BloomFilterPosition::AfterRowGroup)
        .set_key_value_metadata(Some(vec![
            KeyValue::new(MODEL_NAME_KEY.to_owned(), model_name.to_owned()),
            KeyValue::new(VERSION_KEY.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ]));
    for (at, column) in columns.columns().iter().enumerate() {
        let path = column.path().clone();
        let parts: Vec<&str> = path.parts().iter().map(String::as_str).collect();
        if parts == ["timestamp"] && order == Order::Timestamp {
            let column_idx = i32::try_from(at).map_err(|error| ParquetError::General(error.to_string()))?;
            properties =
                properties.set_sorting_columns(Some(vec![SortingColumn { column_idx, descending: false, nulls_first: false }]));
        }
        // Bounds of what has no order tell readers nothing, and cost a comparison or two a row; the bloom filter finds an id.
        if matches!(&parts[..], [name] if *name == "writer" || UNIQUE.contains(name)) {
            properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
        if parts == ["id"] {
            properties = properties
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_max_ndv(path.clone(), rows.clamp(1, MAX_BLOOM_ROWS))
                .set_column_bloom_filter_fpp(path.clone(), 0.01);
        }
        properties = encode(properties, path.clone(), &parts, column.physical_type());
    }
    Ok(properties.build())
}

fn encode(properties: WriterPropertiesBuilder, path: ColumnPath, parts: &[&str], kind: Type) -> WriterPropertiesBuilder {
    let encoding = match kind {
        // BYTE_STREAM_SPLIT is smaller, but Spark cannot read it.
        Type::DOUBLE => Encoding::PLAIN,
        Type::INT64 => Encoding::DELTA_BINARY_PACKED,
        Type::BYTE_ARRAY if matches!(parts, [name] if UNIQUE.contains(name)) => Encoding::PLAIN,
        _ => return properties,
    };
    properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
}

/// A writer of such a file. Arrow's own schema is left out of the file: it says nothing that Parquet's does not.
///
/// # Errors
/// The file cannot be written.
pub fn open_writer(file: File, schema: SchemaRef, properties: WriterProperties) -> Result<ArrowWriter<File>, ParquetError> {
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(file, schema, options)
}

/// The sequence numbers in a file, as ranges per writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterRanges {
    /// Per writer: first -> last, apart from each other.
    writers: BTreeMap<String, BTreeMap<u64, u64>>,
}

impl WriterRanges {
    /// Adds one record.
    pub fn add(&mut self, writer: &str, seq: u64) {
        self.add_range(writer, seq, seq);
    }

    /// Adds all records from `first` to `last`.
    pub fn add_range(&mut self, writer: &str, first: u64, last: u64) {
        let ranges = match self.writers.get_mut(writer) {
            Some(ranges) => ranges,
            None => self.writers.entry(writer.to_owned()).or_default(),
        };
        insert(ranges, first, last);
        if ranges.len() > 2 * MAX_RANGES {
            close_gaps(ranges);
        }
    }

    /// The writers in order, each with its ranges `(first, last)` in order: at most [`MAX_RANGES`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, Vec<(u64, u64)>)> {
        self.writers.iter().map(|(writer, ranges)| {
            let mut ranges = ranges.clone();
            close_gaps(&mut ranges);
            (writer.as_str(), ranges.into_iter().collect())
        })
    }

    /// The smallest and largest sequence number of a writer.
    pub fn span(&self, writer: &str) -> Option<(u64, u64)> {
        let ranges = self.writers.get(writer)?;
        Some((*ranges.first_key_value()?.0, *ranges.last_key_value()?.1))
    }

    /// The value of [`WRITERS_KEY`].
    pub fn to_json(&self) -> String {
        let map: serde_json::Map<String, serde_json::Value> =
            self.iter().map(|(writer, ranges)| (writer.to_owned(), serde_json::json!(ranges))).collect();
        serde_json::Value::Object(map).to_string()
    }
}

fn insert(ranges: &mut BTreeMap<u64, u64>, mut first: u64, mut last: u64) {
    // Sequence numbers mostly follow each other.
    if let Some((_, end)) = ranges.range_mut(..=first).next_back()
        && end.saturating_add(1) >= first
    {
        if *end >= last {
            return;
        }
        let start = ranges.range(..=first).next_back().map_or(first, |(start, _)| *start);
        first = start;
    }
    while let Some((&start, &end)) = ranges.range(first..).next()
        && start <= last.saturating_add(1)
    {
        last = last.max(end);
        ranges.remove(&start);
    }
    ranges.insert(first, last);
}

/// Closes the smallest gaps, the earliest first, until no more than [`MAX_RANGES`] ranges are left.
fn close_gaps(ranges: &mut BTreeMap<u64, u64>) {
    if ranges.len() <= MAX_RANGES {
        return;
    }
    let list: Vec<(u64, u64)> = ranges.iter().map(|(first, last)| (*first, *last)).collect();
    let mut gaps: Vec<(u64, usize)> = list.windows(2).enumerate().map(|(at, pair)| (pair[1].0 - pair[0].1, at + 1)).collect();
    gaps.sort_unstable();
    let mut closed = vec![false; list.len()];
    for (_, at) in gaps.into_iter().take(list.len() - MAX_RANGES) {
        closed[at] = true;
    }
    let mut kept: Vec<(u64, u64)> = Vec::with_capacity(MAX_RANGES);
    for ((first, last), closed) in list.into_iter().zip(closed) {
        match kept.last_mut() {
            Some(previous) if closed => previous.1 = last,
            _ => kept.push((first, last)),
        }
    }
    *ranges = kept.into_iter().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_any_order() {
        let mut ranges = WriterRanges::default();
        for seq in [5, 7, 6, 1, 2, 0, 9, 9, 6] {
            ranges.add("w", seq);
        }
        assert_eq!(ranges.to_json(), r#"{"w":[[0,2],[5,7],[9,9]]}"#);
        ranges.add_range("w", 2, 8);
        ranges.add("v", u64::MAX);
        assert_eq!(ranges.to_json(), r#"{"v":[[18446744073709551615,18446744073709551615]],"w":[[0,9]]}"#);
        assert_eq!(ranges.span("w"), Some((0, 9)));
    }

    #[test]
    fn the_smallest_gaps_are_closed_past_the_limit() {
        let mut ranges = WriterRanges::default();
        ranges.add("w", 0);
        for seq in 0..10_000 {
            ranges.add("w", 1_000_000 + seq * 2);
        }
        let (_, list) = ranges.iter().next().expect("a writer");
        assert!(list.len() <= MAX_RANGES);
        assert_eq!(list[0], (0, 0));
        assert_eq!(list.last().map(|range| range.1), Some(1_000_000 + 9_999 * 2));
        assert!((0..10_000).all(|seq| list.iter().any(|(first, last)| (first..=last).contains(&&(1_000_000 + seq * 2)))));
    }
}

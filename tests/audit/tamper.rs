//! Breaks a store on purpose.

use crate::{database, stored};
use predlog::config::Store;
use std::path::Path;

/// The lane that is tampered with.
const LANE: &str = "-00";

/// The stored rows of a directory of Parquet files again, without some of them: by the same columns, in the same place.
fn rewrite(path: &Path, keep: impl Fn(u64) -> bool, twice: impl Fn(u64) -> bool) {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let file = bytes::Bytes::from(std::fs::read(path).expect("a file"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned();
    let properties = parquet::file::properties::WriterProperties::builder().set_key_value_metadata(pairs).build();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).expect("a file"), builder.schema().clone(), Some(properties))
            .expect("a writer");
    for batch in builder.build().expect("Parquet") {
        let batch = batch.expect("a batch");
        let seqs = batch.column_by_name("seq").expect("seq").as_primitive::<Int64Type>().clone();
        let writers = batch.column_by_name("writer").expect("writer").as_string::<i32>().clone();
        for row in 0..batch.num_rows() {
            let seq = seqs.value(row).cast_unsigned();
            let other = !writers.value(row).ends_with(LANE);
            let times = u64::from(other || keep(seq)) * (1 + u64::from(!other && twice(seq)));
            (0..times).for_each(|_| writer.write(&batch.slice(row, 1)).expect("a row"));
        }
    }
    writer.close().expect("the file is whole");
}

/// Removes and doubles rows of one lane, by their `seq`.
pub fn tamper(dir: &Path, store: Store, remove: &[u64], double: &[u64]) {
    match store {
        Store::Sqlite => {
            let database = database(dir);
            let like = format!("%{LANE}");
            for seq in remove {
                let removed = database.execute(
                    "DELETE FROM predictions WHERE seq = ?1 AND writer LIKE ?2",
                    rusqlite::params![seq.cast_signed(), like],
                );
                assert_eq!(removed, Ok(1));
            }
            let columns = "timestamp, model_name, id, inputs, outputs, writer, seq";
            for seq in double {
                let insert = format!(
                    "INSERT INTO predictions({columns}) SELECT {columns} FROM predictions WHERE seq = ?1 AND writer LIKE ?2"
                );
                assert_eq!(database.execute(&insert, rusqlite::params![seq.cast_signed(), like]), Ok(1));
            }
        }
        Store::Parquet => {
            for path in stored::files(&dir.join("predictions")) {
                rewrite(&path, |seq| !remove.contains(&seq), |seq| double.contains(&seq));
            }
        }
    }
}

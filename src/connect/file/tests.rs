use super::*;
use crate::connect::convert::conform;
use crate::connect::schema::{Kind, Schema};
use crate::connect::value::Value;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::Compression;
use arrow_array::RecordBatch;
use arrow_cast::cast;
use arrow_schema::{DataType, Field};
use std::io::Read as _;
use std::sync::Arc;
use tempfile::TempDir;

fn plain(text: &str) -> Part {
    Part { schema: None, value: Some(serde_json::from_str(text).unwrap()) }
}

/// Rows of a Parquet file, as JSON lines.
fn rows(path: &std::path::Path) -> (Vec<RecordBatch>, Vec<serde_json::Value>) {
    let file = std::fs::File::open(path).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect();
    let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
    batches.iter().for_each(|batch| writer.write(&as_json_takes_it(batch)).unwrap());
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    (batches, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// arrow-json knows no zone by its name, and no map with other keys than texts.
fn as_json_takes_it(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => cast(column, &DataType::Timestamp(*unit, Some("+00:00".into()))).unwrap(),
        DataType::Map(entries, sorted) => cast(column, &DataType::Map(with_text_keys(entries), *sorted)).unwrap(),
        _ => column.clone(),
    });
    let schema = batch.schema();
    let named = schema.fields().iter().map(|field| field.name().clone()).zip(columns).map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn with_text_keys(entries: &Field) -> Arc<Field> {
    let DataType::Struct(fields) = entries.data_type() else { panic!("a map's entries: {entries:?}") };
    let key = fields[0].as_ref().clone().with_data_type(DataType::Utf8);
    Arc::new(entries.clone().with_data_type(DataType::Struct(vec![Arc::new(key), fields[1].clone()].into())))
}

struct Made {
    dir: TempDir,
    file: File,
}

fn file(format: &FileFormat) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let file = File::new(format, dir.path().join("f"));
    Made { dir, file }
}

fn path(content: Content) -> PathBuf {
    match content {
        Content::File(path) => path,
        Content::Bytes(_) => panic!("expected a file"),
    }
}

#[test]
fn plain_json_has_the_columns_of_all_its_rows() {
    let Made { dir: _dir, mut file } = file(&FileFormat::Parquet(Codec::Snappy));
    for row in [
        r#"{"i":1,"d":1.5,"s":"x","b":true,"n":null,"l":[1,2],"o":{"p":{"q":1},"e":{}},"m":1}"#,
        r#"{"i":2,"d":3,"late":[{"k":"v"},null],"o":{"r":"t"},"m":"text","l":null}"#,
        r#"{"l":[],"m":[1]}"#,
    ] {
        assert_eq!(file.add(plain(row), row.len()).unwrap(), Added::Yes);
    }
    let (batches, rows) = rows(&path(file.finish().unwrap()));
    let schema = batches[0].schema();
    let kind = |name: &str| schema.field_with_name(name).unwrap().data_type().to_string();
    assert_eq!((&*kind("i"), &*kind("d"), &*kind("s"), &*kind("b")), ("Int64", "Float64", "Utf8", "Boolean"));
    assert!(schema.field_with_name("n").is_err(), "nulls alone have no column");
    let expected = [
        r#"{"i":1,"d":1.5,"s":"x","b":true,"l":[1,2],"o":{"p":{"q":1}},"m":"1"}"#,
        r#"{"i":2,"d":3.0,"late":[{"k":"v"},null],"o":{"r":"t"},"m":"\"text\""}"#,
        r#"{"l":[],"m":"[1]"}"#,
    ];
    assert_eq!(rows, expected.map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()));
}

#[test]
fn every_codec_is_the_one_in_the_file() {
    for (codec, name, compression) in [
        (Codec::None, ".parquet", Compression::UNCOMPRESSED),
        (Codec::Snappy, ".snappy.parquet", Compression::SNAPPY),
        (Codec::Gzip, ".gz.parquet", Compression::GZIP(Default::default())),
        (Codec::Lz4, ".lz4.parquet", Compression::LZ4_RAW),
        (Codec::Zstd, ".zstd.parquet", Compression::ZSTD(Default::default())),
    ] {
        let format = FileFormat::Parquet(codec);
        assert_eq!(extension(&format), name);
        let Made { dir: _dir, mut file } = file(&format);
        (0..100).for_each(|n| assert_eq!(file.add(plain(&format!("{{\"n\":{n}}}")), 10).unwrap(), Added::Yes));
        let path = path(file.finish().unwrap());
        let reader = ::parquet::file::reader::SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let metadata = ::parquet::file::reader::FileReader::metadata(&reader);
        assert_eq!(std::mem::discriminant(&metadata.row_group(0).column(0).compression()), std::mem::discriminant(&compression));
        assert_eq!(rows(&path).1.len(), 100);
    }
}

#[test]
fn settled_columns_ask_for_another_file() {
    let Made { dir: _dir, mut file } = file(&FileFormat::Parquet(Codec::Zstd));
    for n in 0..9_000 {
        assert_eq!(file.add(plain(&format!("{{\"n\":{n},\"d\":0.5}}")), 20).unwrap(), Added::Yes);
    }
    assert!(file.memory() > 0);
    assert_eq!(file.add(plain(r#"{"d":1}"#), 9).unwrap(), Added::Yes, "whole numbers are doubles too");
    for row in [r#"{"n":1,"new":1}"#, r#"{"n":"text"}"#, r#"{"n":1.5}"#] {
        assert_eq!(file.add(plain(row), row.len()).unwrap(), Added::OtherColumns, "{row}");
    }
    assert_eq!(rows(&path(file.finish().unwrap())).1.len(), 9_001);
}

#[test]
fn what_has_no_columns_is_no_row() {
    let Made { dir: _dir, mut file } = file(&FileFormat::Parquet(Codec::None));
    for row in ["1", "[1]", "\"t\"", "{}"] {
        assert!(matches!(file.add(plain(row), 1).unwrap(), Added::No(why) if why.contains("ParquetFormat")), "{row}");
    }
    assert_eq!(file.add(plain(r#"{"a":null,"b":[]}"#), 1).unwrap(), Added::Yes);
    let (_, rows) = rows(&path(file.finish().unwrap()));
    assert_eq!(rows, [serde_json::json!({"b": "[]"})], "text holds what nothing is known of");
}

#[test]
fn columns_of_a_schema_that_came_along() {
    let optional = |kind| Arc::new(Schema::optional(kind));
    let text = Arc::new(Schema { optional: false, ..Schema::optional(Kind::String) });
    let fields = [
        ("i", Kind::Int(16)),
        ("f", Kind::Float),
        ("b", Kind::Bytes),
        ("n", Kind::Decimal { precision: 10, scale: 2 }),
        ("day", Kind::Date),
        ("time", Kind::Time),
        ("at", Kind::Timestamp),
        ("l", Kind::List(optional(Kind::Double))),
        ("m", Kind::Map(text, optional(Kind::Int64))),
        ("pairs", Kind::Map(Arc::new(Schema { optional: false, ..Schema::optional(Kind::Int64) }), optional(Kind::String))),
        ("s", Kind::Struct(vec![("x".into(), optional(Kind::Bool))])),
    ];
    let schema =
        Arc::new(Schema::optional(Kind::Struct(fields.into_iter().map(|(name, kind)| (name.into(), optional(kind))).collect())));
    let Made { dir: _dir, mut file } = file(&FileFormat::Parquet(Codec::Snappy));
    let full = r#"{"i":-5,"f":0.5,"b":"AQI=","n":"BNI=","day":19787,"time":3723004,"at":1709640429045,"l":[1,null,2.5],
      "m":{"k":1,"z":null},"pairs":[[7,"seven"]],"s":{"x":true}}"#;
    for row in [full, "{}"] {
        let value = conform(serde_json::from_str(row).unwrap(), &schema).unwrap();
        let part = Part { schema: Some(schema.clone()), value: Some(value) };
        assert_eq!(file.add(part, row.len()).unwrap(), Added::Yes);
    }
    let (_, rows) = rows(&path(file.finish().unwrap()));
    let expected: serde_json::Value = serde_json::from_str(
        r#"{"i":-5,"f":0.5,"b":"0102","n":12.34,"day":"2024-03-05","time":"01:02:03.004","at":"2024-03-05T12:07:09.045Z",
          "l":[1.0,null,2.5],"m":{"k":1},"pairs":{"7":"seven"},"s":{"x":true}}"#,
    )
    .unwrap();
    for (name, value) in expected.as_object().unwrap().iter().filter(|(name, _)| !["n", "m", "pairs"].contains(&name.as_str())) {
        assert_eq!(&rows[0][name], value, "{name}");
    }
    assert_eq!(rows[0]["n"].to_string().trim_matches('"'), "12.34");
    assert_eq!((&rows[0]["m"]["k"], &rows[0]["pairs"]["7"]), (&serde_json::json!(1), &serde_json::json!("seven")));
    assert_eq!(rows[1], serde_json::json!({}));
}

#[test]
fn json_is_a_value_a_line_packed_or_not() {
    for gzip in [None, Some(6)] {
        let format = FileFormat::Json { gzip };
        assert_eq!(extension(&format), if gzip.is_some() { ".json.gz" } else { ".json" });
        let Made { dir: _dir, mut file } = file(&format);
        for row in [r#"{"b":1,"a":[1]}"#, "1", r#""t""#] {
            assert_eq!(file.add(plain(row), row.len()).unwrap(), Added::Yes);
        }
        let Content::Bytes(bytes) = file.finish().unwrap() else { panic!("small ones stay in memory") };
        assert_eq!(unpacked(&bytes, gzip), "{\"b\":1,\"a\":[1]}\n1\n\"t\"\n");
    }
}

fn unpacked(bytes: &[u8], gzip: Option<u32>) -> String {
    let mut text = String::new();
    match gzip {
        Some(_) => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        None => std::io::Cursor::new(bytes).read_to_string(&mut text).unwrap(),
    };
    text
}

#[test]
fn large_files_of_lines_go_to_disk_and_memory_stays_bounded() {
    for gzip in [None, Some(1)] {
        let Made { dir, mut file } = file(&FileFormat::Json { gzip });
        let expected: Vec<String> =
            (0..60_000_u64).map(|n| format!("{{\"n\":{}}}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        for row in &expected {
            assert_eq!(file.add(plain(row), row.len()).unwrap(), Added::Yes);
            assert!(file.memory() < 2 << 20);
        }
        let path = path(file.finish().unwrap());
        assert!(path.starts_with(dir.path()));
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(unpacked(&bytes, gzip).lines().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn bytes_are_as_they_came() {
    let format = FileFormat::ByteArray { extension: ".raw".into(), separator: b"--".to_vec(), gzip: None };
    assert_eq!(extension(&format), ".raw");
    let Made { dir: _dir, mut file } = file(&format);
    let schema = Some(Arc::new(Schema::optional(Kind::Bytes)));
    for text in ["/w==", "AA=="] {
        assert_eq!(file.add(Part { schema: schema.clone(), value: Some(Value::from(text)) }, 1).unwrap(), Added::Yes);
    }
    assert!(matches!(file.add(plain("\"AA==\""), 1).unwrap(), Added::No(_)));
    let Content::Bytes(bytes) = file.finish().unwrap() else { panic!("small ones stay in memory") };
    assert_eq!(bytes, b"\xff--\0--");
}

#[test]
fn a_file_that_is_given_up_leaves_nothing() {
    for format in [FileFormat::Parquet(Codec::None), FileFormat::Json { gzip: None }] {
        let Made { dir, mut file } = file(&format);
        let row = format!("{{\"t\":\"{}\"}}", "x".repeat(2 << 20));
        assert_eq!(file.add(plain(&row), row.len()).unwrap(), Added::Yes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! Rows of one model, as batches that its files take.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::decode::{Fit, LineError, RowDecoder};
use super::path::is_cut;
use super::schema::ModelSchema;

/// A [`RowDecoder`], with the column `model_name_full` where the path does not give the name.
#[derive(Debug)]
pub(crate) struct Rows {
    decoder: RowDecoder,
    schema: SchemaRef,
    full_name: Option<String>,
}

impl Rows {
    pub fn new(model_name: &str, schema: &ModelSchema) -> Self {
        let decoder = RowDecoder::new(schema);
        let full_name = is_cut(model_name).then(|| model_name.to_owned());
        let mut schema = decoder.arrow_schema().clone();
        if full_name.is_some() {
            let field = Arc::new(Field::new("model_name_full", DataType::Utf8, false));
            schema = Arc::new(Schema::new(schema.fields().iter().cloned().chain([field]).collect::<Vec<_>>()));
        }
        Rows { decoder, schema, full_name }
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// As [`RowDecoder::push_str`].
    #[inline]
    pub fn push_str(&mut self, line: &str) -> Result<Fit, LineError> {
        self.decoder.push_str(line)
    }

    /// As [`RowDecoder::push_line`].
    #[cfg(feature = "archive")]
    #[inline]
    pub fn push_line(&mut self, line: &[u8]) -> Result<Fit, LineError> {
        self.decoder.push_line(line)
    }

    /// Rows since the last [`finish`](Self::finish).
    pub fn len(&self) -> usize {
        self.decoder.rows()
    }

    /// Bytes of their lines.
    pub fn raw_bytes(&self) -> usize {
        self.decoder.raw_bytes()
    }

    /// The rows so far, as a batch.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let batch = self.decoder.finish()?;
        let Some(name) = &self.full_name else { return Ok(batch) };
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, batch.num_rows())));
        let columns = batch.columns().iter().cloned().chain([names]).collect();
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}

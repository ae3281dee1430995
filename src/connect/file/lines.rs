//! Files of one value after another: JSON, or bytes as they came.

use super::{Added, failed};
use crate::archive::encoder::{Content, EncodeError};
use crate::connect::record::Part;
use crate::connect::schema::{Kind, Schema};
use crate::connect::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Past this, what is encoded goes to a file. It is not kept open: there may be one for each value of a field.
const SPILL: usize = 256 << 10;

pub(in crate::connect) struct Lines {
    /// What is behind each value, for bytes; `None` for JSON.
    separator: Option<Vec<u8>>,
    out: Out,
    path: PathBuf,
    spilled: bool,
}

enum Out {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Out::Plain(buffer) => buffer.write_all(bytes),
            Out::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn encoded(&mut self) -> &mut Vec<u8> {
        match self {
            Out::Plain(buffer) => buffer,
            Out::Gzip(encoder) => encoder.get_mut(),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Of a range that is given up; one that is finished is no longer spilled.
        if self.spilled {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Lines {
    pub fn new(separator: Option<Vec<u8>>, gzip: Option<u32>, path: PathBuf) -> Lines {
        let out = match gzip {
            Some(level) => Out::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(level)))),
            None => Out::Plain(Vec::new()),
        };
        Lines { separator, out, path, spilled: false }
    }

    pub fn add(&mut self, part: &Part) -> Result<Added, EncodeError> {
        let Some(value) = &part.value else { return Ok(Added::No("there is no value".to_owned())) };
        let bytes = match &self.separator {
            None => {
                let mut line = serde_json::to_vec(value).map_err(|error| failed(&self.path, &error))?;
                line.push(b'\n');
                line
            }
            Some(separator) => match bytes(value, part.schema.as_deref()) {
                Some(mut bytes) => {
                    bytes.extend_from_slice(separator);
                    bytes
                }
                None => return Ok(Added::No("ByteArrayFormat: expected bytes".to_owned())),
            },
        };
        self.out.write(&bytes).map_err(|error| failed(&self.path, &error))?;
        if self.out.encoded().len() >= SPILL {
            self.spill()?;
        }
        Ok(Added::Yes)
    }

    fn spill(&mut self) -> Result<(), EncodeError> {
        let encoded = self.out.encoded();
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).open(&self.path);
        self.spilled = true;
        opened.and_then(|mut file| file.write_all(encoded)).map_err(|error| failed(&self.path, &error))?;
        encoded.clear();
        Ok(())
    }

    pub fn memory(&self) -> usize {
        // Of gzip's own, about as much.
        match &self.out {
            Out::Plain(buffer) => buffer.capacity(),
            Out::Gzip(encoder) => encoder.get_ref().capacity() + (256 << 10),
        }
    }

    pub fn finish(mut self) -> Result<Content, EncodeError> {
        let rest = match std::mem::replace(&mut self.out, Out::Plain(Vec::new())) {
            Out::Plain(buffer) => buffer,
            Out::Gzip(encoder) => encoder.finish().map_err(|error| failed(&self.path, &error))?,
        };
        if !self.spilled {
            return Ok(Content::Bytes(rest));
        }
        self.out = Out::Plain(rest);
        self.spill()?;
        self.spilled = false;
        Ok(Content::File(self.path.clone()))
    }
}

fn bytes(value: &Value, schema: Option<&Schema>) -> Option<Vec<u8>> {
    match (value, schema.map(|schema| &schema.kind)) {
        (Value::Text(text), Some(Kind::Bytes)) => STANDARD.decode(text).ok(),
        _ => None,
    }
}

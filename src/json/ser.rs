//! Any `Serialize` to JSON bytes, as serde_json writes them, with three differences that logging needs: NaN and infinities are kept
//! (as `"NaN"`, `"Infinity"`, `"-Infinity"`), memory is bounded (past a limit the bytes are only counted and hashed), and depth is bounded.

#[path = "ser_keys.rs"]
mod keys;

use super::escape::{write_escaped, write_key, write_str};
use super::push::{push_float, push_short};
use super::scan::{Shape, minify};
pub(crate) use keys::KEY;
use keys::{MapKey, RawText};
use serde::ser::{self, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::{self, Display};

/// Values nested deeper than this are replaced by their digest.
pub(crate) const MAX_DEPTH: u32 = 64;
/// Beyond this a value is not even walked to be hashed: the caller's stack is not ours to spend.
const WALK_DEPTH: u32 = 512;
/// Bytes that wait to be hashed, once a value is over its limit.
const HASH_CHUNK: usize = 64 * 1024;
/// How serde_json passes the text of a `RawValue` through serde's data model (serde_json `src/raw.rs`).
const RAW_VALUE: &str = "$serde_json::private::RawValue";
/// The same for numbers, where its feature `arbitrary_precision` is on (serde_json `src/number.rs`).
const NUMBER: &str = "$serde_json::private::Number";
/// How [`Tokens`](crate::record::Tokens) passes a value token by token: as the fields of a struct of this name.
pub(crate) const TOKENS: &str = "$predlog::private::Tokens";

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoded {
    /// It stands in the buffer.
    Whole,
    /// It was too large or too deep: `{"sha256":…,"bytes":…}` stands in its place.
    Digest,
}

/// Appends `value` to `out`, at most `limit` bytes of it.
///
/// # Errors
/// What the value's own `Serialize` says, and map keys that JSON cannot have. `out` is then as it was.
pub(crate) fn to_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T, limit: usize) -> Result<Encoded, EncodeError> {
    let start = out.len();
    let mut encoder = Encoder { out, start, limit, depth: 0, hashing: None };
    let result = value.serialize(&mut encoder);
    let hashing = encoder.hashing.take();
    match (result, hashing) {
        (Ok(()), None) => Ok(Encoded::Whole),
        (Ok(()), Some(mut hashing)) => {
            hashing.take(out, start);
            write_digest(out, &hashing.sha.finalize(), hashing.bytes);
            Ok(Encoded::Digest)
        }
        (Err(error), _) if error.too_deep => {
            out.truncate(start);
            out.extend_from_slice(b"{\"sha256\":null,\"bytes\":null}");
            Ok(Encoded::Digest)
        }
        (Err(error), _) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Replaces what stands in `out[span]` by its digest, and returns how many bytes the digest has.
pub(crate) fn replace_by_digest(out: &mut Vec<u8>, span: std::ops::Range<usize>) -> usize {
    let sha = Sha256::digest(&out[span.clone()]);
    let mut digest = Vec::with_capacity(96);
    write_digest(&mut digest, &sha, span.len() as u64);
    let len = digest.len();
    out.splice(span, digest);
    len
}

fn write_digest(out: &mut Vec<u8>, sha: &[u8], bytes: u64) {
    out.extend_from_slice(b"{\"sha256\":\"");
    for byte in sha {
        for nibble in [byte >> 4, byte & 15] {
            out.push(b"0123456789abcdef"[usize::from(nibble)]);
        }
    }
    out.extend_from_slice(b"\",\"bytes\":");
    out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
    out.push(b'}');
}

/// Why a value has no JSON.
#[derive(Debug)]
pub(crate) struct EncodeError {
    message: String,
    too_deep: bool,
}

impl EncodeError {
    fn new(message: impl Into<String>) -> Self {
        EncodeError { message: message.into(), too_deep: false }
    }
}

impl Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: Display>(message: T) -> Self {
        EncodeError::new(message.to_string())
    }
}

struct Hashing {
    sha: Sha256,
    bytes: u64,
}

impl Hashing {
    fn take(&mut self, out: &mut Vec<u8>, start: usize) {
        self.sha.update(&out[start..]);
        self.bytes += (out.len() - start) as u64;
        out.truncate(start);
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
    depth: u32,
    hashing: Option<Hashing>,
}

impl Encoder<'_> {
    /// Called after each scalar and each part of a long string, so that what is buffered never passes the limit by more than that.
    #[inline]
    fn check(&mut self) {
        if self.out.len() - self.start > self.limit {
            self.over();
        }
    }

    #[cold]
    fn over(&mut self) {
        let hashing = self.hashing.get_or_insert_with(|| Hashing { sha: Sha256::new(), bytes: 0 });
        hashing.take(self.out, self.start);
        self.limit = HASH_CHUNK;
    }

    #[inline]
    fn enter(&mut self, open: u8) -> Result<(), EncodeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.deep()?;
        }
        self.out.push(open);
        Ok(())
    }

    #[cold]
    fn deep(&mut self) -> Result<(), EncodeError> {
        if self.depth > WALK_DEPTH {
            return Err(EncodeError { message: format!("nested deeper than {WALK_DEPTH}"), too_deep: true });
        }
        if self.hashing.is_none() {
            self.over();
        }
        Ok(())
    }

    #[inline]
    fn leave(&mut self, close: u8) {
        self.depth -= 1;
        self.out.push(close);
        self.check();
    }

    #[inline]
    fn number(&mut self, digits: &[u8]) -> Result<(), EncodeError> {
        push_short(self.out, digits);
        self.check();
        Ok(())
    }

    /// JSON text as somebody else wrote it: made one line, without white space, and checked for depth.
    fn raw(&mut self, text: &str) -> Result<(), EncodeError> {
        // A raw value stands in the caller's memory already, so a second copy of at most its size is bounded by it.
        let shape: Shape = minify(self.out, text.as_bytes()).map_err(EncodeError::new)?;
        if self.depth + shape.depth > MAX_DEPTH && self.hashing.is_none() {
            self.over();
        }
        self.check();
        Ok(())
    }
}

/// Long strings are written in parts of this size, with a look at the limit between.
const STRING_PART: usize = 16 * 1024;

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            self.number(itoa::Buffer::new().format(value).as_bytes())
        }
    )*};
}

macro_rules! floats {
    ($($method:ident: $type:ty),*) => {$(
        #[inline(always)]
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            if value.is_finite() {
                push_float(self.out, value);
                self.check();
                Ok(())
            } else if value.is_nan() {
                self.number(b"\"NaN\"")
            } else if value > 0.0 {
                self.number(b"\"Infinity\"")
            } else {
                self.number(b"\"-Infinity\"")
            }
        }
    )*};
}

impl<'e, 'a> ser::Serializer for &'e mut Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'e, 'a>;
    type SerializeTuple = Compound<'e, 'a>;
    type SerializeTupleStruct = Compound<'e, 'a>;
    type SerializeTupleVariant = Compound<'e, 'a>;
    type SerializeMap = Compound<'e, 'a>;
    type SerializeStruct = Compound<'e, 'a>;
    type SerializeStructVariant = Compound<'e, 'a>;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    );
    floats!(serialize_f32: f32, serialize_f64: f64);

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.number(if value { b"true" } else { b"false" })
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        if value.len() <= STRING_PART {
            write_str(self.out, value);
        } else {
            self.out.push(b'"');
            for part in value.as_bytes().chunks(STRING_PART) {
                write_escaped(self.out, part);
                self.check();
            }
            self.out.push(b'"');
        }
        self.check();
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        self.collect_seq(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.number(b"null")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.enter(b'{')?;
        write_str(self.out, variant);
        self.out.push(b':');
        value.serialize(&mut *self)?;
        self.leave(b'}');
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, _len: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
        self.enter(b'[')?;
        Ok(Compound { encoder: self, first: true, close: "]", fields: Fields::Named })
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, EncodeError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, EncodeError> {
        self.enter(b'{')?;
        write_str(self.out, variant);
        self.out.push(b':');
        self.enter(b'[')?;
        Ok(Compound { encoder: self, first: true, close: "]}", fields: Fields::Named })
    }

    #[inline]
    fn serialize_map(self, _len: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
        self.enter(b'{')?;
        Ok(Compound { encoder: self, first: true, close: "}", fields: Fields::Named })
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Self::SerializeStruct, EncodeError> {
        if name == RAW_VALUE || name == NUMBER {
            return Ok(Compound { encoder: self, first: true, close: "", fields: Fields::Raw });
        }
        if name == TOKENS {
            return Ok(Compound { encoder: self, first: true, close: "", fields: Fields::Tokens });
        }
        self.enter(b'{')?;
        Ok(Compound { encoder: self, first: true, close: "}", fields: Fields::Named })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, EncodeError> {
        self.enter(b'{')?;
        write_str(self.out, variant);
        self.out.push(b':');
        self.enter(b'{')?;
        Ok(Compound { encoder: self, first: true, close: "}}", fields: Fields::Named })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        use fmt::Write;
        struct Adapter<'x, 'e, 'a>(&'x mut &'e mut Encoder<'a>);
        impl Write for Adapter<'_, '_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                write_escaped(self.0.out, text.as_bytes());
                self.0.check();
                Ok(())
            }
        }
        let mut encoder = self;
        encoder.out.push(b'"');
        write!(Adapter(&mut encoder), "{value}").map_err(|_| EncodeError::new("its Display failed"))?;
        encoder.out.push(b'"');
        Ok(())
    }
}

/// What a struct's fields are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fields {
    /// Its fields.
    Named,
    /// One, which is JSON text (see [`RAW_VALUE`]).
    Raw,
    /// A value's tokens (see [`TOKENS`]).
    Tokens,
}

/// An object or an array whose end is still to come.
struct Compound<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    first: bool,
    close: &'static str,
    fields: Fields,
}

impl Compound<'_, '_> {
    #[inline]
    fn comma(&mut self) {
        if self.first {
            self.first = false;
        } else {
            self.encoder.out.push(b',');
        }
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.comma();
        value.serialize(&mut *self.encoder)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), EncodeError> {
        if self.fields != Fields::Named {
            return self.special(key, value);
        }
        write_key(self.encoder.out, std::mem::take(&mut self.first), key);
        value.serialize(&mut *self.encoder)
    }

    #[cold]
    fn special<T: Serialize + ?Sized>(&mut self, token: &'static str, value: &T) -> Result<(), EncodeError> {
        if self.fields == Fields::Raw {
            return value.serialize(RawText { encoder: self.encoder });
        }
        match token {
            "[" | "{" => {
                self.comma();
                self.first = true;
                self.encoder.enter(token.as_bytes()[0])?;
            }
            "]" | "}" => {
                self.first = false;
                self.encoder.leave(token.as_bytes()[0]);
            }
            "key" => {
                value.serialize(MapKey { encoder: self.encoder, first: self.first, is_json: false })?;
                // No comma before its value.
                self.first = true;
            }
            _ => self.element(value)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), EncodeError> {
        for close in self.close.bytes() {
            self.encoder.leave(close);
        }
        Ok(())
    }
}

macro_rules! sequences {
    ($($trait:ident: $method:ident),*) => {$(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.element(value)
            }

            #[inline]
            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        }
    )*};
}

macro_rules! structs {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), EncodeError> {
                self.field(key, value)
            }

            #[inline]
            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        }
    )*};
}

sequences!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field);
structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let first = std::mem::take(&mut self.first);
        key.serialize(MapKey { encoder: self.encoder, first, is_json: false })
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(&mut *self.encoder)
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

#[cfg(test)]
#[path = "ser_tests.rs"]
mod tests;

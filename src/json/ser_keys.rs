//! The two places where only text may stand: a map's key, and inside a `RawValue`.

use super::super::escape::write_key;
use super::super::push::push_key;
use super::{EncodeError, Encoder};
use serde::ser::{self, Serialize};

/// How [`Key`](crate::record::Key) passes a name that is JSON already.
pub(crate) const KEY: &str = "$predlog::private::Key";

/// Refuses every kind of value but the ones that its user names.
macro_rules! refuse {
    ($error:expr; $($method:ident($type:ty)),*) => {
        $(fn $method(self, _value: $type) -> Result<(), EncodeError> { Err(EncodeError::new($error)) })*
        fn serialize_none(self) -> Result<(), EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_unit(self) -> Result<(), EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Result<(), EncodeError> {
            Err(EncodeError::new($error))
        }
        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self::SerializeTupleVariant, EncodeError> {
            Err(EncodeError::new($error))
        }
        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, EncodeError> { Err(EncodeError::new($error)) }
        fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self::SerializeStructVariant, EncodeError> {
            Err(EncodeError::new($error))
        }
        type Ok = ();
        type Error = EncodeError;
        type SerializeSeq = ser::Impossible<(), EncodeError>;
        type SerializeTuple = ser::Impossible<(), EncodeError>;
        type SerializeTupleStruct = ser::Impossible<(), EncodeError>;
        type SerializeTupleVariant = ser::Impossible<(), EncodeError>;
        type SerializeMap = ser::Impossible<(), EncodeError>;
        type SerializeStruct = ser::Impossible<(), EncodeError>;
        type SerializeStructVariant = ser::Impossible<(), EncodeError>;
    };
}

/// A map's key, with the colon behind it: strings as they are, numbers and bools as their text (as serde_json does), nothing else.
pub(super) struct MapKey<'e, 'a> {
    pub(super) encoder: &'e mut Encoder<'a>,
    /// No comma stands before it.
    pub(super) first: bool,
    /// The string is JSON already, as a [`Key`](crate::record::Key) has it.
    pub(super) is_json: bool,
}

macro_rules! number_keys {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            write_key(self.encoder.out, self.first, &value.to_string());
            Ok(())
        }
    )*};
}

impl ser::Serializer for MapKey<'_, '_> {
    number_keys!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64, serialize_char: char
    );
    refuse!("a map's key must be a string, a number or a bool"; serialize_bytes(&[u8]));

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        if self.is_json {
            push_key(self.encoder.out, !self.first, value.as_bytes());
        } else {
            write_key(self.encoder.out, self.first, value);
        }
        self.encoder.check();
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), EncodeError> {
        value.serialize(MapKey { is_json: name == KEY, ..self })
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }
}

/// The text inside a `RawValue` or a `Number`.
pub(super) struct RawText<'e, 'a> {
    pub(super) encoder: &'e mut Encoder<'a>,
}

impl ser::Serializer for RawText<'_, '_> {
    refuse!("raw JSON must be text";
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_u8(u8),
        serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_f32(f32), serialize_f64(f64), serialize_char(char),
        serialize_bytes(&[u8]));

    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        self.encoder.raw(value)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }
}

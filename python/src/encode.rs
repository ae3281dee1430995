//! Any Python object to serde's data model, without `json.dumps` between. Plain types go by their type pointer; all others are made plain by
//! `predlog/_convert.py`; what it does not know is kept as its `str()`, and counted. What is nested deep is `walk.rs`'s.

use crate::json::Json;
use crate::keys::with_keys;
use crate::walk::walk;
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};

/// Objects in one prediction. A few lists that hold each other are a small object and an endless text.
const MAX_OBJECTS: u32 = 10_000_000;
/// Objects that turn into objects that must be converted again, one within the other.
const MAX_CONVERSIONS: u32 = 256;
/// Containers that are encoded by one call within the other: a thread's stack may be small. Those within are walked.
const MAX_RECURSION: u32 = 32;

/// What is known of one call of `log()`.
pub(crate) struct Context<'py> {
    /// `predlog._convert.convert`.
    pub convert: &'py Bound<'py, PyAny>,
    pub strict: bool,
    /// Values that stand as text in the record because nothing else was known of them.
    pub as_text: Cell<u64>,
    objects: Cell<u32>,
    pub conversions: Cell<u32>,
    recursion: Cell<u32>,
    /// What is to be raised to the caller: `strict` was asked for, or the exception was no error (`KeyboardInterrupt`).
    pub error: RefCell<Option<PyErr>>,
}

impl<'py> Context<'py> {
    pub fn new(convert: &'py Bound<'py, PyAny>, strict: bool) -> Self {
        Context {
            convert,
            strict,
            as_text: Cell::new(0),
            objects: Cell::new(0),
            conversions: Cell::new(0),
            recursion: Cell::new(0),
            error: RefCell::new(None),
        }
    }

    /// An exception that must reach the caller.
    pub fn fail<E: Error>(&self, error: PyErr) -> E {
        *self.error.borrow_mut() = Some(error);
        E::custom("a Python exception")
    }

    /// Counts an object.
    pub fn count<E: Error>(&self) -> Result<(), E> {
        self.objects.set(self.objects.get() + 1);
        if self.objects.get() > MAX_OBJECTS {
            return Err(E::custom(format!("more than {MAX_OBJECTS} containers in one prediction")));
        }
        Ok(())
    }

    /// A field that is text: a `str` as it is, all else (a UUID, a number) by its `str()`.
    pub fn text<'a>(&self, object: &'a Bound<'py, PyAny>) -> PyResult<Cow<'a, str>> {
        match object.cast::<PyString>() {
            Ok(text) => Ok(text.to_str().map_or_else(|_| Cow::Owned(self.lossy(text)), Cow::Borrowed)),
            Err(_) => self.str_of(object).map(Cow::Owned),
        }
    }

    /// Text with lone surrogates, which UTF-8 has not: they are kept as `\udc80`.
    fn lossy(&self, text: &Bound<'py, PyString>) -> String {
        self.as_text.set(self.as_text.get() + 1);
        let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"));
        bytes
            .ok()
            .and_then(|bytes| bytes.extract::<Vec<u8>>().ok())
            .map_or_else(String::new, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `str(object)`, or what it raised.
    fn str_of(&self, object: &Bound<'py, PyAny>) -> PyResult<String> {
        match object.str() {
            Ok(text) => Ok(text.to_str().map_or_else(|_| self.lossy(&text), str::to_owned)),
            Err(error) if error.is_instance_of::<PyException>(object.py()) => {
                let py = object.py();
                let raised = error.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
                Ok(format!("<{}: str() raised {raised}>", type_name(object)))
            }
            Err(error) => Err(error),
        }
    }

    /// `object` as text, counted; an error where `strict` was asked for.
    pub fn as_text(&self, object: &Bound<'py, PyAny>, expected: &str) -> PyResult<String> {
        if self.strict {
            let message =
                format!("type={}: expected {expected}; convert it before log(), or log without strict=True", type_name(object));
            return Err(PyTypeError::new_err(message));
        }
        self.as_text.set(self.as_text.get() + 1);
        self.str_of(object)
    }

    /// A dict's key: as `json.dumps` has it for numbers, bools and None, else its text.
    pub fn key(&self, key: &Bound<'py, PyAny>) -> PyResult<String> {
        if key.is_none() {
            return Ok("null".to_owned());
        }
        if let Ok(flag) = key.cast_exact::<PyBool>() {
            return Ok(flag.is_true().to_string());
        }
        if key.is_instance_of::<PyString>() || key.is_exact_instance_of::<PyInt>() || key.is_exact_instance_of::<PyFloat>() {
            return self.text(key).map(Cow::into_owned);
        }
        match self.convert.call1((key,)) {
            Ok(plain)
                if plain.is_instance_of::<PyString>() || plain.is_instance_of::<PyInt>() || plain.is_instance_of::<PyFloat>() =>
            {
                self.text(&plain).map(Cow::into_owned)
            }
            Err(error) if !error.is_instance_of::<PyException>(key.py()) => Err(error),
            _ => self.as_text(key, "a key that is str, int, float, bool or None"),
        }
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// An object to be encoded.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a, 'py> {
    pub object: &'a Bound<'py, PyAny>,
    pub context: &'a Context<'py>,
}

impl Serialize for Value<'_, '_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.object;
        if let Some(plain) = plain(object) {
            plain.serialize(serializer)
        } else if let Ok(text) = object.cast_exact::<PyString>() {
            self.text(text, serializer)
        } else if object.is_exact_instance_of::<PyInt>() {
            self.large_int(serializer)
        } else {
            self.container(serializer)
        }
    }
}

impl<'py> Value<'_, 'py> {
    fn of<'b>(&'b self, object: &'b Bound<'py, PyAny>) -> Value<'b, 'py> {
        Value { object, context: self.context }
    }

    fn text<S: Serializer>(&self, text: &Bound<'py, PyString>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text_of::<S::Error>(text)?)
    }

    pub fn text_of<'b, E: Error>(&self, text: &'b Bound<'py, PyString>) -> Result<Cow<'b, str>, E> {
        match text.to_str() {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) if self.context.strict => Err(self.context.fail(error)),
            Err(_) => Ok(Cow::Owned(self.context.lossy(text))),
        }
    }

    #[cold]
    fn large_int<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.object.extract::<u64>() {
            Ok(value) => serializer.serialize_u64(value),
            Err(_) => serializer.serialize_str(&self.unknown::<S::Error>("an int of at most 64 bits")?),
        }
    }

    fn container<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (object, context) = (self.object, self.context);
        let recursion = context.recursion.get();
        if recursion == MAX_RECURSION {
            return walk(self, serializer);
        }
        context.count::<S::Error>()?;
        context.recursion.set(recursion + 1);
        let result = if let Ok(dict) = object.cast::<PyDict>() {
            self.dict(dict, serializer)
        } else if let Ok(list) = object.cast::<PyList>() {
            self.list(list, serializer)
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            self.tuple(tuple, serializer)
        } else if let Some(json) = object.cast_exact::<Json>().ok().and_then(|json| json.get().value()) {
            json.serialize(serializer)
        } else {
            self.other(serializer)
        };
        context.recursion.set(recursion);
        result
    }

    fn tuple<S: Serializer>(&self, tuple: &Bound<'py, PyTuple>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(tuple.len()))?;
        for item in tuple.iter_borrowed() {
            sequence.serialize_element(&self.of(&item))?;
        }
        sequence.end()
    }

    fn list<S: Serializer>(&self, list: &Bound<'py, PyList>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(list.len()))?;
        let mut at = 0;
        while let Some(item) = item(list, at) {
            match plain(&item) {
                Some(plain) => sequence.serialize_element(&plain)?,
                None => sequence.serialize_element(&self.of(&item.to_owned()))?,
            }
            at += 1;
        }
        sequence.end()
    }

    fn dict<S: Serializer>(&self, dict: &Bound<'py, PyDict>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(dict.len()))?;
        let mut at = 0;
        with_keys(|keys| {
            // PyO3's own iterator panics when the dict changes meanwhile, as another thread may do whenever a value runs Python code.
            while let Some((key, value)) = next(dict, &mut at) {
                if let Some(value) = plain(&value)
                    && keys.write(&mut map, &key)?
                {
                    map.serialize_value(&value)?;
                    continue;
                }
                // From here on Python code may run, and take them out of the dict.
                let (key, value) = (key.to_owned(), value.to_owned());
                if !keys.write(&mut map, &key)? {
                    map.serialize_key(&self.context.key(&key).map_err(|error| self.context.fail::<S::Error>(error))?)?;
                }
                map.serialize_value(&self.of(&value))?;
            }
            Ok::<(), S::Error>(())
        })?;
        map.end()
    }

    /// A type that JSON has not.
    #[cold]
    fn other<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.object;
        if let Ok(text) = object.cast::<PyString>() {
            return self.text(text, serializer);
        }
        let conversions = self.context.conversions.get();
        match self.converted::<S::Error>(conversions)? {
            Converted::Plain(plain) => {
                self.context.conversions.set(conversions + 1);
                let result = self.of(&plain).serialize(serializer);
                self.context.conversions.set(conversions);
                result
            }
            Converted::Text(text) => serializer.serialize_str(&text),
        }
    }

    /// What a type that JSON has not becomes, within so many others that were converted.
    pub fn converted<E: Error>(&self, conversions: u32) -> Result<Converted<'py>, E> {
        let object = self.object;
        if conversions >= MAX_CONVERSIONS {
            return self.unknown("a type that becomes plain values").map(Converted::Text);
        }
        match self.context.convert.call1((object,)) {
            Ok(plain) if !plain.is(object) => Ok(Converted::Plain(plain)),
            Err(error) if !error.is_instance_of::<PyException>(object.py()) => Err(self.context.fail(error)),
            _ => self.unknown("a type that predlog knows").map(Converted::Text),
        }
    }

    #[cold]
    fn unknown<E: Error>(&self, expected: &str) -> Result<String, E> {
        self.context.as_text(self.object, expected).map_err(|error| self.context.fail(error))
    }
}

pub(crate) enum Converted<'py> {
    /// It may have to be converted again.
    Plain(Bound<'py, PyAny>),
    /// Nothing is known of it.
    Text(String),
}

/// What is read without a reference of one's own, as no Python code runs until it is written.
pub(crate) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl Serialize for Plain<'_> {
    #[inline(always)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Plain::Null => serializer.serialize_unit(),
            Plain::Bool(flag) => serializer.serialize_bool(flag),
            Plain::Int(int) => serializer.serialize_i64(int),
            Plain::Float(float) => serializer.serialize_f64(float),
            Plain::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// The value of exactly a `float`, `str`, `int`, `bool` or None; `None` for text with lone surrogates and ints of more than 64 bits too.
#[inline(always)]
pub(crate) fn plain<'a>(object: &'a Bound<'_, PyAny>) -> Option<Plain<'a>> {
    // A cast that fails costs more than a look at the type.
    if object.is_exact_instance_of::<PyFloat>() {
        // SAFETY: `object` is a live `float`, and the thread is attached. Of a `float` the value is read, and nothing can fail.
        Some(Plain::Float(unsafe { ffi::PyFloat_AsDouble(object.as_ptr()) }))
    } else if object.is_exact_instance_of::<PyString>() {
        object.cast_exact::<PyString>().ok()?.to_str().ok().map(Plain::Text)
    } else if object.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: `object` is a live `int`, and the thread is attached. For an `int` the call sets no exception: it says by `overflow` what does not fit.
        let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) };
        (overflow == 0).then_some(Plain::Int(value))
    } else if object.is_exact_instance_of::<PyBool>() {
        object.cast_exact::<PyBool>().ok().map(|flag| Plain::Bool(flag.is_true()))
    } else {
        object.is_none().then_some(Plain::Null)
    }
}

/// The item of `list` at `at`: the list's own reference, good until Python code runs.
#[inline]
pub(crate) fn item<'a, 'py>(list: &'a Bound<'py, PyList>, at: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
    // Its length each time: it may be another one than a moment before.
    if at >= list.len() {
        return None;
    }
    // SAFETY: `list` is a live list which has such an item, and the thread is attached.
    unsafe { Borrowed::from_ptr_or_opt(list.py(), ffi::PyList_GetItem(list.as_ptr(), at as ffi::Py_ssize_t)) }
}

/// A key and its value.
pub(crate) type Entry<'a, 'py> = (Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>);

/// The entry of `dict` at `at` or behind it: the dict's own references, good until Python code runs.
#[inline]
pub(crate) fn next<'a, 'py>(dict: &'a Bound<'py, PyDict>, at: &mut ffi::Py_ssize_t) -> Option<Entry<'a, 'py>> {
    let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: `dict` is a live dict and the thread is attached, so nobody changes it during this call. Between calls it may change: `at` is checked
    // against the dict's size each time, so entries are skipped or seen twice, but none is read that is not there.
    let found = unsafe { ffi::PyDict_Next(dict.as_ptr(), at, &raw mut key, &raw mut value) };
    if found == 0 {
        return None;
    }
    // SAFETY: both were set, to live objects.
    unsafe { Some((Borrowed::from_ptr(dict.py(), key), Borrowed::from_ptr(dict.py(), value))) }
}

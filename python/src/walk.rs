//! What is nested deep, without a call within the other: the stack is the caller's, and Python's threads may have little of it.

use crate::encode::{Context, Converted, Value, item, next, plain};
use crate::json::Json;
use predlog::record::Tokens;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple};
use serde::ser::Serializer;

/// A container whose end is still to come, and how far it is.
enum Open<'py> {
    Dict(Bound<'py, PyDict>, ffi::Py_ssize_t),
    List(Bound<'py, PyList>, usize),
    Tuple(Bound<'py, PyTuple>, usize),
}

/// A value, behind its key where it is one of a dict.
type Entry<'py> = (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>);

impl<'py> Open<'py> {
    fn advance(&mut self) -> Option<Entry<'py>> {
        match self {
            Open::Dict(dict, at) => next(dict, at).map(|(key, value)| (Some(key.to_owned()), value.to_owned())),
            Open::List(list, at) => {
                let found = item(list, *at)?.to_owned();
                *at += 1;
                Some((None, found))
            }
            Open::Tuple(tuple, at) => {
                let found = if *at < tuple.len() { tuple.get_item(*at).ok()? } else { return None };
                *at += 1;
                Some((None, found))
            }
        }
    }
}

struct Walk<'a, 'py, S: Serializer> {
    context: &'a Context<'py>,
    tokens: Tokens<S>,
    /// Each with the conversions that it stands in.
    open: Vec<(Open<'py>, u32)>,
}

/// Encodes a value as `Value` does.
#[cold]
#[inline(never)]
pub(crate) fn walk<'py, S: Serializer>(value: &Value<'_, 'py>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut walk = Walk { context: value.context, tokens: Tokens::new(serializer)?, open: Vec::new() };
    walk.begin(value.object.clone(), value.context.conversions.get())?;
    while let Some((open, conversions)) = walk.open.last_mut() {
        let conversions = *conversions;
        match open.advance() {
            Some((key, value)) => {
                if let Some(key) = key {
                    let key = walk.context.key(&key).map_err(|error| walk.context.fail::<S::Error>(error))?;
                    walk.tokens.key(&key)?;
                }
                walk.begin(value, conversions)?;
            }
            None => walk.end()?,
        }
    }
    walk.tokens.end()
}

impl<'py, S: Serializer> Walk<'_, 'py, S> {
    /// A scalar as a whole, the begin of a container.
    fn begin(&mut self, object: Bound<'py, PyAny>, conversions: u32) -> Result<(), S::Error> {
        let (mut object, mut conversions) = (object, conversions);
        loop {
            let value = Value { object: &object, context: self.context };
            if let Some(plain) = plain(&object) {
                return self.tokens.value(&plain);
            }
            if object.is_exact_instance_of::<PyString>() || object.is_exact_instance_of::<PyInt>() {
                return self.tokens.value(&value);
            }
            self.context.count::<S::Error>()?;
            if let Ok(dict) = object.cast::<PyDict>() {
                self.open.push((Open::Dict(dict.clone(), 0), conversions));
                return self.tokens.open_object();
            }
            if let Ok(list) = object.cast::<PyList>() {
                self.open.push((Open::List(list.clone(), 0), conversions));
                return self.tokens.open_list();
            }
            if let Ok(tuple) = object.cast_exact::<PyTuple>() {
                self.open.push((Open::Tuple(tuple.clone(), 0), conversions));
                return self.tokens.open_list();
            }
            if let Some(json) = object.cast_exact::<Json>().ok().and_then(|json| json.get().value()) {
                return self.tokens.value(json);
            }
            if let Ok(text) = object.cast::<PyString>() {
                return self.tokens.value(&*value.text_of::<S::Error>(text)?);
            }
            object = match value.converted::<S::Error>(conversions)? {
                Converted::Plain(plain) => plain,
                Converted::Text(text) => return self.tokens.value(&text),
            };
            conversions += 1;
        }
    }

    fn end(&mut self) -> Result<(), S::Error> {
        match self.open.pop() {
            Some((Open::Dict(..), _)) => self.tokens.close_object(),
            Some(_) => self.tokens.close_list(),
            None => Ok(()),
        }
    }
}

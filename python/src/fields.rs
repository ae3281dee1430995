//! What `log()` was given beside inputs and outputs, as the types that a record has.

use crate::encode::Context;
use predlog::Prediction;
use predlog::clock::Timestamp;
use predlog::record::{MAX_ID_BYTES, MAX_TEXT_BYTES, actuals_of};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyMapping, PyString};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::HashSet;

macro_rules! named {
    ($($name:ident),*) => {
        /// The keywords that a record has a field for, beside its model's name, its inputs and its outputs.
        pub(crate) const NAMES: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        /// Their values; `None` is as if it was not given.
        #[derive(Clone, Copy)]
        pub(crate) struct Named<T> {
            $(pub $name: Option<T>),*
        }

        impl<T> From<[Option<T>; NAMES.len()]> for Named<T> {
            fn from([$($name),*]: [Option<T>; NAMES.len()]) -> Self {
                Named { $($name),* }
            }
        }

        impl<T> Default for Named<T> {
            fn default() -> Self {
                Named { $($name: None),* }
            }
        }
    };
}

named!(model_version, id, timestamp, request_id, row_index, status_code, error, latency_ms, sample_weight, metadata, traceparent);

/// As they came from Python, borrowed for a call.
pub(crate) struct Given<'a, 'py> {
    pub model_name: &'a Bound<'py, PyAny>,
    pub named: Named<&'a Bound<'py, PyAny>>,
    /// All other keywords: metadata.
    pub others: Option<&'a Bound<'py, PyDict>>,
}

/// The same, from a dict.
pub(crate) struct Keywords<'py> {
    model_name: Bound<'py, PyAny>,
    named: [Option<Bound<'py, PyAny>>; NAMES.len()],
    others: Bound<'py, PyDict>,
}

impl<'py> Keywords<'py> {
    /// # Errors
    /// TypeError, when the model's name is missing.
    pub fn new(keywords: &Bound<'py, PyDict>) -> PyResult<Self> {
        let others = keywords.copy()?;
        let take = |name: &str| -> PyResult<Option<Bound<'py, PyAny>>> {
            let value = others.get_item(name)?;
            if value.is_some() {
                others.del_item(name)?;
            }
            Ok(value.filter(|value| !value.is_none()))
        };
        let model_name = take("model_name")?.ok_or_else(|| PyTypeError::new_err("model_name is missing: expected a str"))?;
        let mut named = [const { None }; NAMES.len()];
        for (name, slot) in NAMES.iter().zip(&mut named) {
            *slot = take(name)?;
        }
        Ok(Keywords { model_name, named, others })
    }

    pub fn given(&self) -> Given<'_, 'py> {
        let named = self.named.each_ref().map(Option::as_ref).into();
        Given { model_name: &self.model_name, named, others: Some(&self.others) }
    }
}

/// As the record has them. What does not fit its field becomes metadata of its name.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    model_name: Cow<'a, str>,
    model_version: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    timestamp: Option<Timestamp>,
    request_id: Option<Cow<'a, str>>,
    row_index: Option<u64>,
    status_code: Option<u16>,
    error: Option<Cow<'a, str>>,
    latency_ms: Option<f64>,
    sample_weight: Option<f64>,
    traceparent: Option<Cow<'a, str>>,
    metadata: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// # Errors
    /// With `strict`, a value that does not fit its field; else only exceptions that are no errors.
    pub fn read<'py>(given: &Given<'a, 'py>, context: &Context<'py>) -> PyResult<Self> {
        let mut fields = Fields::default();
        fields.fill(given, context).map(|()| fields)
    }

    /// The same where they are to stand: they are many, and moving them takes a twentieth of a call's time.
    #[inline]
    pub fn fill<'py>(&mut self, given: &Given<'a, 'py>, context: &Context<'py>) -> PyResult<()> {
        let named = &given.named;
        let text = |object: Option<&'a Bound<'py, PyAny>>| match object {
            Some(object) if object.is_instance_of::<PyString>() || !is_missing(object) => context.text(object).map(Some),
            _ => Ok(None),
        };
        self.model_name = context.text(given.model_name)?;
        self.model_version = self.short("model_version", text(named.model_version)?, MAX_TEXT_BYTES, context);
        // An empty one is none: a header that was not sent.
        let id = text(named.id)?.filter(|id| !id.is_empty());
        self.id = self.short("id", id, MAX_ID_BYTES, context);
        self.error = text(named.error)?;
        self.request_id = self.short("request_id", text(named.request_id)?, MAX_TEXT_BYTES, context);
        self.traceparent = self.short("traceparent", text(named.traceparent)?, MAX_TEXT_BYTES, context);
        self.timestamp = self.fit("timestamp", named.timestamp, "a datetime or seconds since 1970", context, time)?;
        self.row_index = self.fit("row_index", named.row_index, "an int from 0 to 2**63-1", context, row_index)?;
        self.status_code =
            self.fit("status_code", named.status_code, "an int from 0 to 65535", context, |object| object.extract().map(Some))?;
        self.latency_ms = self.fit("latency_ms", named.latency_ms, "a finite float", context, finite)?;
        self.sample_weight = self.fit("sample_weight", named.sample_weight, "a finite float", context, finite)?;
        if let Some(metadata) = named.metadata {
            match only_errors(metadata.py(), dict(metadata))? {
                Some(metadata) => self.add(&metadata, context)?,
                None => self.metadata.push(("metadata".to_owned(), context.as_text(metadata, "metadata as a dict")?)),
            }
        }
        let Some(others) = given.others else { return Ok(()) };
        let before = self.metadata.len();
        self.add(others, context)?;
        // A keyword wins over the metadata's own.
        if before > 0 {
            let keywords: HashSet<String> = self.metadata[before..].iter().map(|(key, _)| key.clone()).collect();
            let mut at = 0;
            self.metadata.retain(|(key, _)| {
                at += 1;
                at > before || !keywords.contains(key)
            });
        }
        Ok(())
    }

    /// A text that a client has chosen, in a header: the record is not lost for its length, nor does `strict` raise for it.
    #[inline]
    fn short(&mut self, name: &str, text: Option<Cow<'a, str>>, most: usize, context: &Context<'_>) -> Option<Cow<'a, str>> {
        let text = text?;
        if text.len() <= most {
            return Some(text);
        }
        context.as_text.set(context.as_text.get() + 1);
        self.metadata.push((name.to_owned(), text.into_owned()));
        None
    }

    #[inline]
    fn fit<'py, T>(
        &mut self,
        name: &str,
        object: Option<&Bound<'py, PyAny>>,
        expected: &str,
        context: &Context<'py>,
        read: impl Fn(&Bound<'py, PyAny>) -> PyResult<Option<T>>,
    ) -> PyResult<Option<T>> {
        let Some(object) = object else { return Ok(None) };
        let value = only_errors(object.py(), read(object))?;
        if value.is_none() {
            self.metadata.push((name.to_owned(), context.as_text(object, &format!("{name} as {expected}"))?));
        }
        Ok(value)
    }

    fn add<'py>(&mut self, others: &Bound<'py, PyDict>, context: &Context<'py>) -> PyResult<()> {
        // A copy: the `str()` of a value may change the dict.
        for (key, value) in others.copy()? {
            self.metadata.push((context.text(&key)?.into_owned(), context.text(&value)?.into_owned()));
        }
        Ok(())
    }

    /// The same for the record that keeps the model's actuals, of the prediction `id`.
    pub fn for_actuals(mut self, id: Cow<'a, str>) -> Self {
        self.model_name = Cow::Owned(actuals_of(&self.model_name));
        self.id = Some(id);
        self
    }

    pub fn metadata(&self) -> Vec<(&str, &str)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    pub fn prediction<'b, I: Serialize, O: Serialize>(
        &'b self,
        inputs: &'b I,
        outputs: &'b O,
        metadata: &'b [(&'b str, &'b str)],
    ) -> Prediction<'b, I, O> {
        let mut prediction =
            Prediction::new(&self.model_name, self.model_version.as_deref().unwrap_or_default(), inputs, outputs)
                .metadata(metadata);
        macro_rules! set {
            ($($field:ident: $value:expr),*) => {$(
                if let Some(value) = $value {
                    prediction = prediction.$field(value);
                }
            )*};
        }
        set!(id: self.id.as_deref(), timestamp: self.timestamp, request_id: self.request_id.as_deref(), row_index: self.row_index);
        set!(status_code: self.status_code, error: self.error.as_deref(), latency_ms: self.latency_ms, sample_weight: self.sample_weight);
        set!(traceparent: self.traceparent.as_deref());
        prediction
    }
}

/// `None` for what raised an error. What is none, such as `KeyboardInterrupt`, is the caller's.
#[inline]
fn only_errors<T>(py: Python<'_>, read: PyResult<Option<T>>) -> PyResult<Option<T>> {
    read.or_else(|error| if error.is_instance_of::<PyException>(py) { Ok(None) } else { Err(error) })
}

/// Whether it stands for no value: pandas' `NA` or `NaT`, or NaN, as a column of ids has where there is none.
#[cold]
fn is_missing(object: &Bound<'_, PyAny>) -> bool {
    if let Ok(float) = object.cast::<PyFloat>() {
        return float.value().is_nan();
    }
    object.get_type().name().is_ok_and(|name| name == "NAType" || name == "NaTType")
}

/// What its column holds: an i64.
fn row_index(object: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    object.extract().map(|index: u64| i64::try_from(index).is_ok().then_some(index))
}

fn finite(object: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    object.extract().map(|value: f64| value.is_finite().then_some(value))
}

/// Seconds since 1970, an RFC 3339 text, or a `datetime`, which is local time when it has no time zone, as everywhere in Python.
fn time(object: &Bound<'_, PyAny>) -> PyResult<Option<Timestamp>> {
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Timestamp::parse(text.to_str()?).ok());
    }
    let seconds: f64 = match object.extract() {
        Ok(seconds) => seconds,
        // By the class itself: to that of pandas, local time is UTC.
        Err(_) => datetime(object.py())?.call_method1("timestamp", (object,))?.extract()?,
    };
    let micros = (seconds * 1e6).round() as i64;
    // Milliseconds in place of seconds are past every calendar: a wrong time is no time.
    let timestamp = Timestamp::from_micros(micros);
    Ok((seconds.is_finite() && timestamp.micros() == micros).then_some(timestamp))
}

fn datetime(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static DATETIME: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    DATETIME.import(py, "datetime", "datetime")
}

/// Any mapping.
fn dict<'py>(metadata: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    if let Ok(dict) = metadata.cast::<PyDict>() {
        return Ok(Some(dict.clone()));
    }
    let Ok(mapping) = metadata.cast::<PyMapping>() else { return Ok(None) };
    PyDict::from_sequence(mapping.items()?.as_any()).map(Some)
}

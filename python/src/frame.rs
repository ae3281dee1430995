//! What Python gives as columns (`predlog/_columns.py`), as Arrow's arrays.

use arrow_array::builder::StringBuilder;
use arrow_array::ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::types::{TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, PrimitiveArray, StringArray, StructArray,
    new_empty_array,
};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, Field};
use arrow_select::concat::concat;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyCapsule, PyList, PyString, PyTuple};
use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::sync::Arc;

/// Lists and structs within each other, past which rows are read as Python's objects, by a walk: Arrow's arrays are read by calls within each other, for
/// which a thread's stack may be too small.
const MAX_NESTING: u32 = 64;
/// Where a row is for a missing time, as in NumPy.
const NOT_A_TIME: i64 = i64::MIN;

/// Parts of one column: a frame's rows are structs.
pub(crate) type Chunks = Vec<ArrayRef>;

/// Reads what `_columns.source()` makes:
/// - a capsule of Arrow's C stream interface;
/// - `(kind, bytes, width)`: NumPy's values in the machine's byte order, `kind` such as `"f8"`; with a width each row is a list of so many;
/// - `("str", list, width)`: the same of texts;
/// - a list of `(name, source)`: the columns of a frame.
///
/// # Errors
/// TypeError, for anything else, and for columns that differ in length.
pub(crate) fn chunks(source: &Bound<'_, PyAny>) -> PyResult<Chunks> {
    if let Ok(capsule) = source.cast::<PyCapsule>() {
        stream(capsule)
    } else if let Ok(columns) = source.cast::<PyList>() {
        Ok(vec![frame(columns)?])
    } else {
        Ok(vec![values(source.cast::<PyTuple>()?)?])
    }
}

pub(crate) fn to_python(error: ArrowError) -> PyErr {
    PyTypeError::new_err(error.to_string())
}

fn stream(capsule: &Bound<'_, PyCapsule>) -> PyResult<Chunks> {
    let stream = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name points to such a stream (Arrow's PyCapsule interface). It is moved out of the capsule, which is left with a
    // released one, while the thread is attached to Python, so that nobody else reads it.
    let mut stream = unsafe { FFI_ArrowArrayStream::from_raw(stream.as_ptr()) };
    if is_deep(&mut stream) {
        let message = format!("expected at most {MAX_NESTING} lists and structs within each other");
        return Err(PyTypeError::new_err(message));
    }
    let reader = ArrayStreamReader::try_new(stream).map_err(to_python)?;
    reader.collect::<Result<_, _>>().map_err(to_python)
}

/// Whether its types are nested deeper than [`MAX_NESTING`]. What is wrong with the stream is the reader's to tell.
fn is_deep(stream: &mut FFI_ArrowArrayStream) -> bool {
    let mut schema = FFI_ArrowSchema::empty();
    let Some(get_schema) = stream.get_schema() else { return false };
    // SAFETY: the callback is of this stream, which is not released; the schema that it makes is released when it is dropped. It may be asked for any
    // number of times.
    if unsafe { get_schema(stream, &raw mut schema) } != 0 {
        return false;
    }
    let mut types = vec![(&schema, 0)];
    while let Some((found, nesting)) = types.pop() {
        if nesting > MAX_NESTING {
            return true;
        }
        types.extend(found.children().chain(found.dictionary()).map(|within| (within, nesting + 1)));
    }
    false
}

fn frame(columns: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let (name, source): (String, Bound<'_, PyAny>) = column.extract()?;
        let array = whole(chunks(&source)?).map_err(to_python)?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    Ok(Arc::new(StructArray::try_new(fields.into(), arrays, None).map_err(to_python)?))
}

fn whole(mut chunks: Chunks) -> Result<ArrayRef, ArrowError> {
    match chunks.len() {
        0 => Ok(new_empty_array(&arrow_schema::DataType::Null)),
        1 => Ok(chunks.remove(0)),
        _ => concat(&chunks.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
    }
}

fn values(source: &Bound<'_, PyTuple>) -> PyResult<ArrayRef> {
    let (kind, values, width): (String, Bound<'_, PyAny>, Option<i32>) = source.extract()?;
    let values: ArrayRef = match values.cast::<PyList>() {
        Ok(values) if kind == "str" => Arc::new(texts(values)?),
        _ => numbers(&kind, values.extract()?)?,
    };
    let Some(width) = width else { return Ok(values) };
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, values, None).map_err(to_python)?))
}

fn texts(values: &Bound<'_, PyList>) -> PyResult<StringArray> {
    let mut texts = StringBuilder::with_capacity(values.len(), 16 * values.len());
    for value in values {
        texts.append_value(value.cast::<PyString>()?.to_str()?);
    }
    Ok(texts.finish())
}

fn numbers(kind: &str, bytes: PyBackedBytes) -> PyResult<ArrayRef> {
    Ok(match kind {
        "b1" => Arc::new(bytes.iter().map(|byte| Some(*byte != 0)).collect::<BooleanArray>()),
        "i1" => primitive::<Int8Type>(bytes),
        "i2" => primitive::<Int16Type>(bytes),
        "i4" => primitive::<Int32Type>(bytes),
        "i8" => primitive::<Int64Type>(bytes),
        "u1" => primitive::<UInt8Type>(bytes),
        "u2" => primitive::<UInt16Type>(bytes),
        "u4" => primitive::<UInt32Type>(bytes),
        "u8" => primitive::<UInt64Type>(bytes),
        "f4" => primitive::<Float32Type>(bytes),
        "f8" => primitive::<Float64Type>(bytes),
        "M8" => times(&bytes),
        other => return Err(PyTypeError::new_err(format!("kind={other}: expected a NumPy kind and size such as f8"))),
    })
}

/// Bytes past the last whole value are none.
fn primitive<T: ArrowPrimitiveType>(bytes: PyBackedBytes) -> ArrayRef {
    let len = bytes.len() / size_of::<T::Native>();
    let aligned = bytes.as_ptr().cast::<T::Native>().is_aligned();
    let buffer = match NonNull::new(bytes.as_ptr().cast_mut()) {
        // SAFETY: these are so many bytes of Python's, which never change, and the buffer keeps their owner.
        Some(start) if aligned => unsafe {
            Buffer::from_custom_allocation(start, bytes.len(), Arc::new(AssertUnwindSafe(bytes)))
        },
        _ => Buffer::from(&*bytes),
    };
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(buffer, 0, len), None))
}

/// Microseconds since 1970.
fn times(bytes: &[u8]) -> ArrayRef {
    let micros = bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_ne_bytes(*bytes));
    Arc::new(micros.map(|micros| (micros != NOT_A_TIME).then_some(micros)).collect::<PrimitiveArray<TimestampMicrosecondType>>())
}

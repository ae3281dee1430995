//! The keys of dicts as JSON, kept between calls: a model's features have the same names each time, and most often the same `str` objects.

use predlog::record::Key;
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::PyString;
use serde::ser::SerializeMap;
use std::cell::RefCell;

/// Keys that a thread keeps: a power of two.
const SLOTS: usize = 512;
/// Longer ones are not kept.
const MAX_BYTES: usize = 128;
/// Once as many as there are slots were taken in, each so manieth key that is not there is. So keys that are never seen again (those of parsed JSON are new
/// objects each time) cost little, and the names of another model are soon there.
const MISSES: u32 = 64;

thread_local!(static KEYS: Keys = Keys::default());

/// Runs `work` with this thread's keys.
pub(crate) fn with_keys<T>(mut work: impl FnMut(&Keys) -> T) -> T {
    let done = KEYS.try_with(&mut work);
    // A thread that ends has none any more.
    done.unwrap_or_else(|_| work(&Keys::default()))
}

#[derive(Default)]
pub(crate) struct Keys(RefCell<Table>);

impl Keys {
    /// Writes a key that is a `str`; `false`, and nothing is written, for any other and for one with lone surrogates. Runs no Python code.
    #[inline(always)]
    pub fn write<M: SerializeMap>(&self, map: &mut M, key: &Bound<'_, PyAny>) -> Result<bool, M::Error> {
        let mut table = self.0.borrow_mut();
        if let Some(kept) = table.get(key.as_ptr()) {
            map.serialize_key(kept)?;
            return Ok(true);
        }
        let Ok(key) = key.cast_exact::<PyString>() else { return Ok(false) };
        let Ok(text) = key.to_str() else { return Ok(false) };
        table.offer(key, text);
        map.serialize_key(text)?;
        Ok(true)
    }
}

#[derive(Default)]
struct Table {
    /// A key is in one of two neighbours; none are there before the first.
    slots: Vec<Option<Slot>>,
    misses: u32,
}

struct Slot {
    /// As long as it is kept, no other object has its address.
    object: Py<PyString>,
    key: Key,
}

impl Table {
    #[inline(always)]
    fn get(&self, object: *mut PyObject) -> Option<&Key> {
        let at = place(object);
        let kept = |at: usize| self.slots.get(at)?.as_ref().filter(|slot| slot.object.as_ptr() == object);
        kept(at).or_else(|| kept(at ^ 1)).map(|slot| &slot.key)
    }

    #[cold]
    fn offer(&mut self, object: &Bound<'_, PyString>, text: &str) {
        self.misses = self.misses.wrapping_add(1);
        let wanted = self.misses as usize <= SLOTS || self.misses.is_multiple_of(MISSES);
        if !wanted || text.len() > MAX_BYTES {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let at = place(object.as_ptr());
        let at = if self.slots[at].is_some() && self.slots[at ^ 1].is_none() { at ^ 1 } else { at };
        self.slots[at] = Some(Slot { object: object.clone().unbind(), key: Key::new(text) });
    }
}

#[inline]
fn place(object: *mut PyObject) -> usize {
    let spread = (object as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (spread >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}

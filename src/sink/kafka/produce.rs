//! The calls of librdkafka that rdkafka's safe interface has not: many messages a call, and a partition by what the message carries.

use super::reports::{Opaque, Reports};
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _};
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// librdkafka's producer with our reports.
pub(super) type Producer = BaseProducer<Reports>;

/// Messages handed over in one call: enough that the call costs nothing, few enough that their names stay in the cache.
const GROUP: usize = 512;
/// `RD_KAFKA_PARTITION_UA`: the topic's partitioner decides.
const UNASSIGNED: i32 = -1;

/// A message, borrowed for the time of the call: librdkafka copies it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) payload: &'a [u8],
    pub(super) key: Option<Cow<'a, [u8]>>,
    pub(super) opaque: Opaque,
}

/// A message's headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) name: &'static CStr,
    pub(super) value: &'a [u8],
}

/// A topic of a producer.
pub(super) struct Topic {
    name: String,
    native: *mut sys::rd_kafka_topic_t,
    /// The topic lives no longer than its client.
    producer: Arc<Producer>,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}

/// The partition of a message without a key: the hash that its opaque carries, so that a replay goes where the first try went.
unsafe extern "C" fn partition_by_hash(
    _topic: *const sys::rd_kafka_topic_t,
    _key: *const c_void,
    _key_len: usize,
    partitions: i32,
    _topic_opaque: *mut c_void,
    opaque: *mut c_void,
) -> i32 {
    i32::from(Opaque::from_bits(opaque as usize).hash >> 1) % partitions.max(1)
}

impl Topic {
    /// # Errors
    /// The name cannot be one of librdkafka's, or it has no memory for it.
    pub(super) fn new(producer: &Arc<Producer>, name: &str, by_hash: bool) -> Result<Self, String> {
        let c_name = CString::new(name).map_err(|error| format!("topic={name:?}: {error}"))?;
        let client = producer.client().native_ptr();
        // SAFETY: the client lives as long as `producer`, which the topic keeps; a conf that is given to rd_kafka_topic_new is its own from
        // then on, also when it fails with what librdkafka documents as a wrong conf, which a copy of the client's own cannot be.
        let native = unsafe {
            let conf = if by_hash { sys::rd_kafka_default_topic_conf_dup(client) } else { ptr::null_mut() };
            if !conf.is_null() {
                sys::rd_kafka_topic_conf_set_partitioner_cb(conf, Some(partition_by_hash));
            }
            sys::rd_kafka_topic_new(client, c_name.as_ptr(), conf)
        };
        if native.is_null() {
            return Err(format!("topic={name}: librdkafka refuses it"));
        }
        Ok(Topic { name: name.to_owned(), native, producer: Arc::clone(producer) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Hands messages over. Those that librdkafka does not take are reported as refused.
    pub(super) fn produce(&self, messages: &[Outgoing<'_>], natives: &mut Natives, reports: &Reports) {
        for group in messages.chunks(GROUP) {
            natives.0.clear();
            natives.0.extend(group.iter().map(|message| native_message(message)));
            let natives = &mut natives.0;
            // SAFETY: with F_COPY librdkafka reads payloads and keys during the call only, for which `group` borrows them; the array has as
            // many messages as are said. F_PARTITION is not set: the topic's partitioner decides.
            let taken = unsafe {
                sys::rd_kafka_produce_batch(
                    self.native,
                    UNASSIGNED,
                    sys::RD_KAFKA_MSG_F_COPY as c_int,
                    natives.as_mut_ptr(),
                    natives.len() as c_int,
                )
            };
            if taken as usize == group.len() {
                continue;
            }
            for (message, native) in group.iter().zip(natives.iter()) {
                if native.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    reports.refused(message.opaque, native.err.into(), &self.name, message.payload);
                }
            }
        }
    }

    /// Hands one message with headers over.
    pub(super) fn produce_with_headers(&self, message: &Outgoing<'_>, headers: &[Header<'_>], reports: &Reports) {
        if let Err(code) = self.try_produce_with_headers(message, headers) {
            reports.refused(message.opaque, code, &self.name, message.payload);
        }
    }

    fn try_produce_with_headers(&self, message: &Outgoing<'_>, headers: &[Header<'_>]) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: as above: all is copied during the call. The headers are librdkafka's once it has taken the message, and ours otherwise.
        unsafe {
            let list = sys::rd_kafka_headers_new(headers.len());
            for header in headers {
                let (name, value) = (header.name.to_bytes().len(), header.value.len());
                sys::rd_kafka_header_add(list, header.name.as_ptr(), name as isize, header.value.as_ptr().cast(), value as isize);
            }
            let key = message.key.as_deref().unwrap_or_default();
            let values = [
                value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, sys::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.native }),
                value(
                    sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                    sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY as c_int },
                ),
                value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(message.payload)),
                value(
                    sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                    sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: message.opaque.to_bits() as *mut c_void },
                ),
                value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, sys::rd_kafka_vu_s__bindgen_ty_1 { headers: list }),
                value(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(key)),
            ];
            let count = if message.key.is_some() { values.len() } else { values.len() - 1 };
            let error = sys::rd_kafka_produceva(self.producer.client().native_ptr(), values.as_ptr(), count);
            if error.is_null() {
                return Ok(());
            }
            let code = sys::rd_kafka_error_code(error);
            sys::rd_kafka_error_destroy(error);
            sys::rd_kafka_headers_destroy(list);
            Err(code.into())
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_topic_new, destroyed once, before its client (which `producer` keeps).
        unsafe { sys::rd_kafka_topic_destroy(self.native) }
    }
}

/// Room for a group of messages in librdkafka's own form, kept between calls. Its pointers are dead outside of a call.
#[derive(Default)]
pub(super) struct Natives(Vec<sys::rd_kafka_message_t>);

// SAFETY: the pointers in it are only followed during a call that has just set them.
unsafe impl Send for Natives {}

fn native_message(message: &Outgoing<'_>) -> sys::rd_kafka_message_t {
    sys::rd_kafka_message_t {
        err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: 0,
        payload: message.payload.as_ptr().cast_mut().cast(),
        len: message.payload.len(),
        key: message.key.as_deref().map_or(ptr::null_mut(), |key| key.as_ptr().cast_mut().cast()),
        key_len: message.key.as_deref().map_or(0, <[u8]>::len),
        offset: 0,
        _private: message.opaque.to_bits() as *mut c_void,
    }
}

fn value(vtype: sys::rd_kafka_vtype_t, u: sys::rd_kafka_vu_s__bindgen_ty_1) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

fn memory(bytes: &[u8]) -> sys::rd_kafka_vu_s__bindgen_ty_1 {
    let mem = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: bytes.as_ptr().cast_mut().cast(), size: bytes.len() };
    sys::rd_kafka_vu_s__bindgen_ty_1 { mem }
}

//! Which topic a name means: one that was deleted and made anew has the name and the offsets of the one before, and other messages.

use super::consumer::{ANSWER, Consumer};
use crate::ship::Target;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use parking_lot::Mutex;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Below the target's URL: which topic of a name its objects were first made of.
const TOPICS: &str = "_predlog/topics";
/// How long the store may take for a small object.
const STORE: Duration = Duration::from_secs(30);

/// The id that the brokers have given a topic. Brokers before Kafka 2.8 give none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicId(u128);

impl TopicId {
    pub fn parse(text: &str) -> Option<TopicId> {
        u128::from_str_radix(text, 16).ok().map(TopicId)
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The ids of topics, of those that have one and may be asked for.
///
/// # Errors
/// The brokers do not answer.
pub(super) fn ids(consumer: &Consumer, topics: &HashSet<Arc<str>>) -> Result<HashMap<Arc<str>, TopicId>, String> {
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(&**topic).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let native = consumer.client().native_ptr();
    let wait = c_int::try_from(ANSWER.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client lives as long as `consumer`; names outlive the call, which copies them; queue, collection and event are destroyed here, once.
    let found = unsafe {
        let queue = sys::rd_kafka_queue_new(native);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(native, collection, std::ptr::null(), queue);
        sys::rd_kafka_TopicCollection_destroy(collection);
        let answer = NonNull::new(sys::rd_kafka_queue_poll(queue, wait)).map(|event| {
            let answer = described(event);
            sys::rd_kafka_event_destroy(event.as_ptr());
            answer
        });
        sys::rd_kafka_queue_destroy(queue);
        answer
    };
    let found = found.unwrap_or_else(|| Err(format!("no answer within {ANSWER:?}")));
    let found = found.map_err(|error| format!("cannot ask which topics there are: {error}"))?;
    Ok(topics.iter().filter_map(|topic| Some((topic.clone(), *found.get(&**topic)?))).collect())
}

/// # Safety
/// `event` is the answer to `rd_kafka_DescribeTopics`, and alive.
unsafe fn described(event: NonNull<sys::rd_kafka_event_t>) -> Result<HashMap<String, TopicId>, String> {
    let event = event.as_ptr();
    let mut found = HashMap::new();
    // SAFETY: the event is alive, and everything that is read here belongs to it; texts and numbers are copied.
    unsafe {
        match sys::rd_kafka_event_error(event) {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            // Brokers that are too old know no ids.
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => return Ok(found),
            _ => return Err(CStr::from_ptr(sys::rd_kafka_event_error_string(event)).to_string_lossy().into_owned()),
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for index in 0..count {
            let topic = *topics.add(index);
            let (name, id) = (sys::rd_kafka_TopicDescription_name(topic), sys::rd_kafka_TopicDescription_topic_id(topic));
            if id.is_null() {
                continue;
            }
            let (high, low) = (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
            let id = u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned());
            // One that is not there, or may not be described, has the id zero.
            if id != 0 {
                found.insert(CStr::from_ptr(name).to_string_lossy().into_owned(), TopicId(id));
            }
        }
    }
    Ok(found)
}

/// What tells a topic from the first of its name; of the first itself, nothing.
pub(super) type Tag = Option<Arc<str>>;

/// What names of objects have behind the topic's: nothing for the topic that the target had first under this name, else what tells it from that one.
pub(super) struct Tags {
    target: Target,
    runtime: Handle,
    known: Mutex<HashMap<(Arc<str>, TopicId), Tag>>,
}

impl Tags {
    pub fn new(target: Target, runtime: Handle) -> Tags {
        Tags { target, runtime, known: Mutex::default() }
    }

    /// Waits for the store: not for a thread of the runtime.
    ///
    /// # Errors
    /// It does not answer.
    pub fn of(&self, topic: &Arc<str>, id: TopicId) -> Result<Tag, String> {
        if let Some(known) = self.known.lock().get(&(topic.clone(), id)) {
            return Ok(known.clone());
        }
        let tag = self.runtime.block_on(tag(&self.target, topic, id))?;
        self.known.lock().insert((topic.clone(), id), tag.clone());
        Ok(tag)
    }
}

async fn tag(target: &Target, topic: &str, id: TopicId) -> Result<Tag, String> {
    let key = format!("{TOPICS}/{topic}");
    let failed = |error: &dyn std::fmt::Display| format!("key={key}: {error}");
    let path = target.key(&key).map_err(|error| failed(&error))?;
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let asked = async {
        // Most often it is there.
        match target.store.get(&path).await {
            Ok(first) => return first.bytes().await,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let options = if target.conditional { options } else { PutOptions::default() };
        match target.store.put_opts(&path, id.to_string().into(), options).await {
            Ok(_) => Ok(id.to_string().into()),
            Err(object_store::Error::AlreadyExists { .. }) => target.store.get(&path).await?.bytes().await,
            Err(error) => Err(error),
        }
    };
    let first = tokio::time::timeout(STORE, asked).await.map_err(|_| failed(&format!("no answer within {STORE:?}")))?;
    let first = first.map_err(|error| failed(&error))?;
    if first.as_ref() == id.to_string().as_bytes() {
        return Ok(None);
    }
    let tag = id.to_string()[..8].to_owned();
    tracing::warn!(
        topic,
        tag,
        "the target has objects of another topic of this name: this one's have the tag behind the topic in their names"
    );
    Ok(Some(tag.into()))
}

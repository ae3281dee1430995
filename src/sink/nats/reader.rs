//! Reading what is in the streams, for an audit.

use super::connect::Target;
use super::settings::NatsSettings;
use crate::sink::broker::topic::{NATS, TopicTemplate};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;
use std::fmt::Display;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The longest that the servers may take to answer, or to send the next message.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A connection that blocks.
pub(crate) struct Reader {
    runtime: Runtime,
    jetstream: Context,
    stream: String,
    template: TopicTemplate,
}

impl Reader {
    /// # Errors
    /// The settings are wrong, or no server answers.
    pub(crate) fn open(settings: &NatsSettings) -> Result<Self, String> {
        let template =
            TopicTemplate::parse(&settings.subject, &NATS).map_err(|expected| format!("nats.subject: expected {expected}"))?;
        let target = Target::new(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the runtime: {error}"))?;
        // The client starts tasks, so it is made within the runtime.
        let connected = runtime.block_on(within(async { target.connect_once().await.map(async_nats::jetstream::new) }));
        Ok(Reader { runtime, jetstream: connected??, stream: settings.stream.clone(), template })
    }

    /// Gives `each` every line of the ledger's statements, from whichever stream takes them; none where no stream does.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub(crate) fn statements(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let subject = self.template.ledger_subject();
        let stream = self.runtime.block_on(within(self.jetstream.stream_by_subject(subject.clone())))?;
        stream.map_or(Ok(()), |stream| self.read(&stream, subject, each))
    }

    /// Gives `each` every line of the predictions that the stream has now.
    ///
    /// # Errors
    /// The stream is missing, or cannot be read.
    pub(crate) fn predictions(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        self.read(&self.stream, self.template.wildcard(), each)
    }

    fn read(&self, stream: &str, filter_subject: String, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let explain = |error: &dyn Display| format!("stream={stream}: {error}");
        self.runtime.block_on(async {
            let found = within(self.jetstream.get_stream(stream)).await?.map_err(|error| explain(&error))?;
            let config = OrderedConfig { filter_subject, ..OrderedConfig::default() };
            let consumer = within(found.create_consumer(config)).await?.map_err(|error| explain(&error))?;
            let pending = consumer.cached_info().num_pending;
            let mut messages = within(consumer.messages()).await?.map_err(|error| explain(&error))?;
            for _ in 0..pending {
                // Limits may have taken the last ones meanwhile: then none comes.
                let Some(message) = within(messages.next()).await? else { break };
                let message = message.map_err(|error| explain(&error))?;
                message.payload.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).for_each(&mut *each);
                if message.info().is_ok_and(|info| info.pending == 0) {
                    break;
                }
            }
            Ok(())
        })
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(ANSWER_WITHIN, work).await.map_err(|_| format!("no answer within {ANSWER_WITHIN:?}"))
}

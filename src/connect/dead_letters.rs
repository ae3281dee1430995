//! The dead letter topic, made where it is missing, as Connect does.

use super::config::DeadLetters;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use std::time::Duration;

/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the topic, with one partition. A failure is told, and no more: it may be there already, or be made by somebody who is allowed to.
pub(super) fn create(client: &ClientConfig, letters: &DeadLetters) {
    let tried = client.create::<AdminClient<DefaultClientContext>>().and_then(|admin| {
        let new = NewTopic::new(&letters.topic, 1, TopicReplication::Fixed(letters.replication));
        futures_executor::block_on(admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(PATIENCE))))
    });
    let topic = &letters.topic;
    match tried.as_deref() {
        Ok([Ok(_)]) => tracing::info!(topic, "the dead letter topic is made"),
        Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) => {}
        Ok([Err((_, error))]) => tracing::warn!(topic, %error, "the dead letter topic cannot be made"),
        Ok(other) => tracing::warn!(topic, answer = ?other, "the dead letter topic: an answer about something else"),
        Err(error) => tracing::warn!(topic, %error, "the dead letter topic cannot be made"),
    }
}

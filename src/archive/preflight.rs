//! What the brokers are asked before anything is read: whether a job's topics are there. That of its dead letters is made.

use super::consumer::{ANSWER, INTERNAL};
use super::job::{Job, OnBad};
use super::range::Fault;
use crate::sink::kafka::Quiet;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;
use regex::Regex;

/// The questions of a job, for a thread of their own: brokers that are away answer late.
pub(super) struct Preflight {
    client: ClientConfig,
    topics: Vec<String>,
    /// The topic of dead letters, and the replicas that it is made with.
    dead_letters: Option<(String, Option<i32>)>,
}

impl Preflight {
    pub fn of(job: &Job) -> Preflight {
        let dead_letters = match &job.on_bad {
            OnBad::Topic { name, make, .. } => Some((name.clone(), *make)),
            _ => None,
        };
        let needed = job.topics.iter().filter(|topic| !job.optional.contains(topic));
        Preflight { client: job.client.clone(), topics: needed.cloned().collect(), dead_letters }
    }

    /// The topics that are not there, and the patterns that none matches.
    ///
    /// # Errors
    /// The brokers do not answer, or dead letters would have no topic.
    pub fn ask(&self) -> Result<Vec<String>, Fault> {
        let again = |error: String| Fault::Again(format!("cannot ask the brokers which topics there are: {error}"));
        let made = self.client.create_with_context(Quiet::default());
        let admin: AdminClient<Quiet> = made.map_err(|error| again(error.to_string()))?;
        let answer = admin.inner().fetch_metadata(None, ANSWER);
        let metadata = answer.map_err(|error| again(admin.inner().context().explain(error)))?;
        let there: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
        match &self.dead_letters {
            Some((topic, _)) if there.contains(&&**topic) => {}
            Some((topic, Some(replicas))) => make(&admin, topic, *replicas)?,
            Some((topic, None)) => {
                let why =
                    format!("topic={topic} of dead letters is not there: expected one that exists; make it, or name another");
                return Err(Fault::Fatal(why));
            }
            None => {}
        }
        Ok(self.topics.iter().filter(|topic| !is_there(topic, &there)).cloned().collect())
    }
}

fn is_there(topic: &str, there: &[&str]) -> bool {
    if !topic.starts_with('^') {
        return there.contains(&topic);
    }
    // What librdkafka's matcher knows and this one does not, nothing can be said of.
    let matches = |pattern: Regex| there.iter().any(|name| !INTERNAL.contains(name) && pattern.is_match(name));
    Regex::new(topic).map_or(true, matches)
}

/// Makes the topic, with one partition, as Connect does.
fn make(admin: &AdminClient<Quiet>, topic: &str, replicas: i32) -> Result<(), Fault> {
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(replicas));
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let why = |error: &dyn std::fmt::Display| {
        format!(
            "topic={topic} of dead letters is not there, and cannot be made with replication factor {replicas}: {error}: make it, or set \
             errors.deadletterqueue.topic.replication.factor to what the brokers allow"
        )
    };
    match futures_executor::block_on(admin.create_topics([&new], &options)).as_deref() {
        Ok([Ok(_)]) => {
            tracing::info!(topic, "the topic of dead letters is made");
            Ok(())
        }
        Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) => Ok(()),
        Ok([Err((_, error))]) if passes(*error) => Err(Fault::Again(why(error))),
        Ok([Err((_, error))]) => Err(Fault::Fatal(why(error))),
        Ok(_) => Err(Fault::Again(why(&"the answer is about something else"))),
        Err(error) => Err(Fault::Again(why(error))),
    }
}

fn passes(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerNotAvailable, BrokerTransportFailure, LeaderNotAvailable, NetworkException, NotController,
        OperationTimedOut, RequestTimedOut, ThrottlingQuotaExceeded,
    };
    matches!(
        error,
        AllBrokersDown
            | BrokerNotAvailable
            | BrokerTransportFailure
            | LeaderNotAvailable
            | NetworkException
            | NotController
            | OperationTimedOut
            | RequestTimedOut
            | ThrottlingQuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_patterns_that_name_nothing_are_told_from_others() {
        let there = ["orders", "models.v1", "__consumer_offsets"];
        for (topic, expected) in [
            ("orders", true),
            ("order", false),
            ("^order", true),
            ("^order$", false),
            ("^(models[.]v([0123456789])+)$", true),
            // Patterns do not take it.
            ("^.*offsets", false),
            ("__consumer_offsets", true),
            ("^(", true),
        ] {
            assert_eq!(is_there(topic, &there), expected, "{topic}");
        }
    }
}

//! A [`Job`] of a connector.

use super::config::SinkConfig;
use super::sink::S3Sink;
use crate::archive::{Job, OnBad, SameKey, ScratchDir};
use crate::config::{Config, UploadSettings};
use crate::error::{Error, ErrorKind};
use crate::rotation::RotationSettings;
use crate::sink::kafka::topics;
use bytesize::ByteSize;
use std::sync::Arc;
use std::time::Duration;

/// Where the environment says that S3 is, the more exact name first.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// The format ends each range itself: by `flush.size` and the `rotate.` keys.
const NEVER_BY_ITSELF: RotationSettings = RotationSettings {
    max_rows: u64::MAX,
    max_bytes: ByteSize::b(u64::MAX),
    max_age: Duration::MAX,
    max_idle: Duration::MAX,
    schedule: None,
};

/// Archives as the connector says: with the brokers of `[kafka]` and the directory, memory and threads of `[archive]`. `environment` answers for
/// the variables that say where S3 is; credentials that the connector does not give are read where the AWS SDKs have them.
///
/// # Errors
/// [`ErrorKind::Config`]: a key that is wrong. [`ErrorKind::Storage`]: `archive.dir` cannot be made.
pub fn job(
    sink: &SinkConfig,
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    until_end: bool,
) -> Result<Job, Error> {
    let wrong = |why: String| Error::new(ErrorKind::Config, format!("connector={}: {why}", sink.name));
    let group = group_of(&sink.name);
    let client = topics(&config.kafka).map_err(wrong)?.client;
    let scratch = ScratchDir::open(&config.archive.dir).map_err(|why| Error::new(ErrorKind::Storage, why))?;
    let scratch = Arc::new(scratch);
    let format = S3Sink::new(sink, scratch.clone()).map_err(wrong)?;
    let target = target(sink, environment);
    target.validate().map_err(wrong)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Job {
        client,
        topics: sink.topics.clone(),
        optional: Vec::new(),
        start: sink.start,
        format: Arc::new(format),
        rotation: NEVER_BY_ITSELF,
        on_bad: on_bad(sink),
        log_bad: sink.log_errors,
        target,
        same_key: SameKey::Replace,
        table: None,
        state_prefix: format!("_predlog/states/{}", crate::format::path::model_stem(&group)),
        group,
        scratch,
        memory: usize::try_from(config.archive.memory.as_u64()).unwrap_or(usize::MAX),
        threads: sink.tasks_max.min(cores),
        until_end,
    })
}

/// The group of a connector, as Connect names it.
pub(super) fn group_of(connector: &str) -> String {
    format!("connect-{connector}")
}

fn on_bad(sink: &SinkConfig) -> OnBad {
    match (&sink.dead_letters, sink.tolerate) {
        (Some(letters), _) => OnBad::Topic {
            name: letters.topic.clone(),
            make: Some(letters.replication),
            headers: letters.headers,
            connector: Some(sink.name.clone()),
        },
        (None, true) => OnBad::Skip,
        (None, false) => OnBad::Stop,
    }
}

fn target(sink: &SinkConfig, environment: &dyn Fn(&str) -> Option<String>) -> UploadSettings {
    let given = |name: &&str| environment(name).filter(|url| !url.is_empty());
    let endpoint = sink.endpoint.clone().or_else(|| ENDPOINTS.iter().find_map(given));
    UploadSettings {
        url: Some(format!("s3://{}", sink.bucket)),
        // Who gives http:// as the store's URL wants no TLS, as with the maker's sink.
        allow_http: endpoint.as_deref().is_some_and(|url| url.starts_with("http://")),
        endpoint,
        region: Some(sink.region.clone()),
        access_keys: sink.access_keys.clone(),
        virtual_hosted: !sink.path_style,
        multipart_bytes: ByteSize::b(sink.part_size),
        ..UploadSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(more: &[(&str, &str)]) -> SinkConfig {
        let given = [
            ("connector.class", "S3SinkConnector"),
            ("topics", "t"),
            ("s3.bucket.name", "b"),
            ("flush.size", "5"),
            ("format.class", "json"),
        ];
        let given = given.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        SinkConfig::parse("c", given).unwrap()
    }

    #[test]
    fn the_bucket_is_where_connector_or_environment_say() {
        let nothing = |_: &str| None;
        let minio = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://minio:9000".to_owned());
        let settings = target(&sink(&[]), &nothing);
        assert_eq!((settings.url.as_deref(), settings.endpoint.as_deref()), (Some("s3://b"), None));
        assert_eq!((settings.region.as_deref(), settings.virtual_hosted), (Some("us-west-2"), false));
        let settings = target(&sink(&[]), &minio);
        assert_eq!((settings.endpoint.as_deref(), settings.allow_http), (Some("http://minio:9000"), true));
        let settings = target(&sink(&[("store.url", "https://other"), ("s3.path.style.access.enabled", "false")]), &minio);
        assert_eq!((settings.endpoint.as_deref(), settings.allow_http), (Some("https://other"), false));
        assert!(settings.virtual_hosted);
    }

    #[test]
    fn keys_of_the_connector_are_used_and_never_shown() {
        let sink = sink(&[("aws.access.key.id", "AKID"), ("aws.secret.access.key", "hunter2")]);
        let settings = target(&sink, &|_| None);
        let keys = settings.access_keys.as_ref().unwrap();
        assert_eq!((&*keys.id, keys.secret.reveal()), ("AKID", "hunter2"));
        let shown = format!("{settings:?}{sink:?}{}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn bad_messages_go_where_the_connector_says() {
        let all = ("errors.tolerance", "all");
        assert_eq!(on_bad(&sink(&[])), OnBad::Stop);
        assert_eq!(on_bad(&sink(&[all])), OnBad::Skip);
        let topic = ("errors.deadletterqueue.topic.name", "dead");
        assert_eq!(
            on_bad(&sink(&[all, topic])),
            OnBad::Topic { name: "dead".into(), make: Some(3), headers: false, connector: Some("c".into()) }
        );
    }

    #[test]
    fn a_job_has_the_connectors_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.archive.dir = dir.path().to_owned();
        let job = job(&sink(&[("topics", "a, b")]), &config, &|_| None, true).unwrap();
        assert_eq!((&*job.group, &job.topics[..]), ("connect-c", &["a".to_owned(), "b".to_owned()][..]));
        let error = super::job(&sink(&[("store.url", "nonsense")]), &config, &|_| None, true).err().unwrap().to_string();
        assert!(error.contains("connector=c") && error.contains("nonsense"), "{error}");
    }
}

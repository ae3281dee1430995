//! The keys of Confluent's S3 sink, checked one by one and against each other.

mod common;
mod key;
mod keys;

use super::validate::{ConfigInfo, ConfigInfos, Definition, Validate};
use crate::connect::{Config, SinkConfig};
use key::Key;

const CLASS: &str = "io.confluent.connect.s3.S3SinkConnector";
/// A class may be named without its package, and without its last word.
const ALIASES: [&str; 2] = ["S3SinkConnector", "S3Sink"];
const CONVERTERS: [&str; 2] = ["key.converter", "value.converter"];
const DEAD_LETTER_TOPIC: &str = "errors.deadletterqueue.topic.name";

/// Checks a configuration of the S3 sink: key by key in Connect's words, and when all are right, whether it can be run as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Sink;

impl Validate for S3Sink {
    fn class(&self) -> &str {
        CLASS
    }

    fn is_class(&self, name: &str) -> bool {
        name == CLASS || ALIASES.contains(&name)
    }

    fn definitions(&self) -> Vec<Definition> {
        let mut definitions: Vec<_> =
            keys::KEYS.iter().chain(common::KEYS).map(|key| key.definition(key.name.to_owned())).collect();
        // Defaults of the worker, not of the connector.
        for definition in definitions.iter_mut().filter(|definition| definition.name.contains(".converter")) {
            definition.default_value = None;
        }
        definitions
    }

    fn validate(&self, config: &Config) -> ConfigInfos {
        let mut groups = [common::COMMON, common::TRANSFORMS, common::PREDICATES, common::ERRORS].map(str::to_owned).to_vec();
        let mut configs: Vec<_> = common::KEYS.iter().map(|key| key.info(get(config, key.name))).collect();
        check_topics(config, &mut configs);
        for alias in list(config, "transforms") {
            groups.push(format!("{}: {alias}", common::TRANSFORMS));
            configs.extend(below(common::TRANSFORM, config, &format!("transforms.{alias}"), Called::Whole));
        }
        configs.extend(keys::KEYS.iter().map(|key| key.info(get(config, key.name))));
        for converter in CONVERTERS {
            if get(config, converter).is_some_and(|class| class.trim().ends_with("JsonConverter")) {
                configs.extend(below(common::JSON_CONVERTER, config, converter, Called::Own));
            }
        }
        for group in configs.iter().filter_map(|info| info.definition.group.as_ref()) {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        if configs.iter().all(|info| info.value.errors.is_empty()) {
            check_together(config, &mut configs);
        }
        ConfigInfos {
            name: get(config, "connector.class").unwrap_or_default().to_owned(),
            error_count: configs.iter().map(|info| info.value.errors.len()).sum(),
            groups,
            configs,
        }
    }
}

/// How errors call a key of a part.
#[derive(Clone, Copy, PartialEq)]
enum Called {
    Whole,
    Own,
}

fn below<'a>(keys: &'a [Key], config: &'a Config, part: &'a str, called: Called) -> Vec<ConfigInfo> {
    let info = |key: &Key| {
        let whole = format!("{part}.{}", key.name);
        key.info_as(&whole, if called == Called::Whole { &whole } else { key.name }, get(config, &whole))
    };
    keys.iter().map(info).collect()
}

/// What Connect asks of every sink.
fn check_topics(config: &Config, configs: &mut [ConfigInfo]) {
    let mut refuse = |keys: &[&str], why: &str| {
        for info in configs.iter_mut().filter(|info| keys.contains(&info.definition.name.as_str())) {
            info.value.errors.push(why.to_owned());
        }
    };
    let topics = list(config, "topics");
    let regex = get(config, "topics.regex").unwrap_or_default().trim();
    match (topics.is_empty(), regex.is_empty()) {
        (true, true) => refuse(&["topics", "topics.regex"], "Must configure one of topics or topics.regex"),
        (false, false) => {
            refuse(&["topics", "topics.regex"], "topics and topics.regex are mutually exclusive options, but both are set.");
        }
        _ => {}
    }
    let dead_letters = get(config, DEAD_LETTER_TOPIC).unwrap_or_default().trim();
    if topics.contains(&dead_letters) {
        let topics = topics.join(", ");
        refuse(
            &[DEAD_LETTER_TOPIC],
            &format!(
                "The DLQ topic '{dead_letters}' may not be included in the list of topics ('topics=[{topics}]') consumed by the connector"
            ),
        );
    }
}

/// What the sink itself says of a configuration whose keys are right one by one: each problem is told with the key that it begins with.
fn check_together(config: &Config, configs: &mut Vec<ConfigInfo>) {
    let given = config.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let Err(problems) = SinkConfig::parse(get(config, "name").unwrap_or_default(), given) else { return };
    for problem in problems.0 {
        let name = problem.split(['=', ':', ' ']).next().unwrap_or_default();
        let known = configs.iter().position(|info| info.definition.name == name);
        let at = known.unwrap_or_else(|| {
            let key = Key { name: "", kind: key::Kind::Text, default: key::Default::Null, ..common::TRANSFORM[0] };
            configs.push(key.info_as(name, name, get(config, name)));
            configs.len() - 1
        });
        configs[at].value.errors.push(problem);
    }
}

fn get<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    config.get(key)?.as_deref()
}

fn list<'a>(config: &'a Config, key: &str) -> Vec<&'a str> {
    get(config, key).unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}

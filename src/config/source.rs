//! Where values come from: a TOML file and the environment, each key known before its value is looked at.

use super::Config;
use super::problem::{expected, hint, nearest, shown_at};
use crate::error::{Error, ErrorKind};
use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::collections::BTreeMap;

const PREFIX: &str = "PREDLOG_";
/// Names the file, and is no key.
const FILE_VARIABLE: &str = "PREDLOG_CONFIG";

/// Names the source of what a caller gave in code.
const KEYWORDS: &str = "keyword";
/// Names the source of what nobody gave.
const DEFAULT: &str = "default";

const NUMBERS_WITHOUT_DEFAULT: [&str; 1] = ["logger.lanes"];

const LIST: &str = "values with commas between them, such as a,b, or an array as in the file, such as [\"a\", \"b\"]";

/// The given values, later sources over earlier ones.
pub(super) struct Sources {
    layers: Vec<Given>,
    figment: Figment,
    /// Key path to the name of the variable that set it, as it was written.
    variables: BTreeMap<String, String>,
    /// What is wrong with keys and with the types of their values. Such values are left out of the layers: the others can be checked then.
    problems: Vec<String>,
}

/// A source whose values are read already.
#[derive(Clone)]
struct Given {
    name: String,
    values: Dict,
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Sources {
    pub(super) fn none() -> Self {
        Sources { layers: Vec::new(), figment: Figment::new(), variables: BTreeMap::new(), problems: Vec::new() }
    }

    /// Reads a file, variables, and TOML that wins over both. Keys that do not exist are problems.
    pub(super) fn read(
        file: Option<(String, String)>,
        variables: impl IntoIterator<Item = (String, String)>,
        keywords: Option<&str>,
    ) -> Result<Self, Error> {
        let known = Known::keys()?;
        let mut problems = Vec::new();
        let mut sources = Self::none();
        if let Some((name, text)) = file {
            sources.take_toml(format!("file={name}"), &text, &known, &mut problems);
        }
        let values = sources.take_variables(variables, &known, &mut problems);
        sources.layers.push(Given { name: "environment".to_owned(), values });
        if let Some(text) = keywords {
            sources.take_toml(KEYWORDS.to_owned(), text, &known, &mut problems);
            sources.take_over(&known);
        }
        sources.problems = problems;
        sources.merge();
        Ok(sources)
    }

    fn take_toml(&mut self, name: String, text: &str, known: &Known, problems: &mut Vec<String>) {
        match parse_toml(&name, text) {
            Ok(mut values) => {
                known.check(&name, &mut values, "", problems);
                self.layers.push(Given { name, values });
            }
            Err(problem) => problems.push(problem),
        }
    }

    /// The keywords win: what a variable said of the same keys is not what counts, nor where they are from. As in a variable, a number may be text, and text
    /// a number.
    fn take_over(&mut self, known: &Known) {
        let Some(given) = self.layers.last_mut().filter(|layer| layer.name == KEYWORDS) else { return };
        for (path, default) in &known.leaves {
            let keys: Vec<&str> = path.split('.').collect();
            if let Some(value) = value_in(&mut given.values, &keys) {
                self.variables.remove(path);
                loosen(path, default, value);
            }
        }
    }

    fn merge(&mut self) {
        self.figment = self.layers.iter().cloned().fold(Figment::new(), Figment::merge);
    }

    fn take_variables(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
        known: &Known,
        problems: &mut Vec<String>,
    ) -> Dict {
        let mut values = Dict::new();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix(PREFIX).filter(|_| name != FILE_VARIABLE) else { continue };
            if is_of_kubernetes(key) {
                continue;
            }
            let path = key.to_ascii_lowercase().replace("__", ".");
            let Some(default) = known.leaves.get(&path) else {
                problems.push(known.unknown_variable(&name));
                continue;
            };
            let value = if default.is_array() {
                match parse_list(&text) {
                    Ok(list) => list,
                    Err(why) => {
                        let shown = shown_at(&path, &Value::from(text));
                        problems.push(format!("variable={name}: {path}={shown}: expected {LIST}: {why}"));
                        continue;
                    }
                }
            } else if takes_text(&path, default) {
                Value::from(text)
            } else {
                parse_scalar(&text)
            };
            insert(&mut values, &path, value);
            self.variables.insert(path, name);
        }
        values
    }

    /// The configuration. Values of a wrong type are problems, of which each is told; the defaults stand in for them.
    pub(super) fn extract(&mut self) -> Config {
        loop {
            let error = match self.figment.extract() {
                Ok(config) => return config,
                Err(error) => error,
            };
            self.problems.push(self.describe(&error));
            if !self.leave_out(&error.path) {
                return Config::default();
            }
        }
    }

    fn describe(&self, error: &figment::Error) -> String {
        let path = with_indices(&error.path);
        let value = self.value_at(&error.path).map_or_else(|| "?".to_owned(), |value| shown_at(&path, &value));
        let expected = match &error.kind {
            Kind::UnknownField(key, known) => format!("no key \"{key}\" here{}", hint(key, known)),
            Kind::MissingField(key) => format!("a key \"{key}\" in it"),
            kind => expected(kind),
        };
        format!("{}: {path}={value}: expected {expected}", self.origin(&path))
    }

    /// Leaves a value out of all layers; of a list, which is of one source as a whole, all of it. Returns whether there was one.
    fn leave_out(&mut self, path: &[String]) -> bool {
        let keys: Vec<&str> = path.iter().map(String::as_str).take_while(|part| part.parse::<usize>().is_err()).collect();
        let Some((last, section)) = keys.split_last() else { return false };
        let mut found = false;
        for layer in &mut self.layers {
            let section = section.iter().try_fold(&mut layer.values, |values, key| dict_in(values, key));
            found |= section.is_some_and(|values| values.remove(*last).is_some());
        }
        self.variables.remove(&keys.join("."));
        self.merge();
        found
    }

    /// All that is wrong with keys and types, once [`extract`](Self::extract) has seen them.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Whether a value of `origin` may stand in for one that could not be read: nobody has chosen it.
    pub(super) fn stands_in(&self, origin: &str) -> bool {
        origin == DEFAULT && !self.problems.is_empty()
    }

    fn value_at(&self, path: &[String]) -> Option<Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.figment.find_value(first).ok()?, |value, part| match value {
            Value::Dict(_, mut fields) => fields.remove(part),
            Value::Array(_, elements) => elements.into_iter().nth(part.parse().ok()?),
            _ => None,
        })
    }

    /// The file or the variable that set `path`.
    pub(super) fn origin(&self, path: &str) -> String {
        // A list is of one source as a whole.
        let path = path.split('[').next().unwrap_or(path);
        match (self.variables.get(path), self.figment.find_metadata(path)) {
            (Some(variable), _) => format!("variable={variable}"),
            (None, Some(metadata)) => metadata.name.to_string(),
            (None, None) => DEFAULT.to_owned(),
        }
    }
}

/// `sinks.0.type` as it is written elsewhere: `sinks[0].type`.
fn with_indices(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if part.parse::<usize>().is_ok() {
            text.push_str(&format!("[{part}]"));
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(part);
        }
    }
    text
}

fn dict_in<'a>(values: &'a mut Dict, key: &str) -> Option<&'a mut Dict> {
    match values.get_mut(key) {
        Some(Value::Dict(_, inner)) => Some(inner),
        _ => None,
    }
}

fn value_in<'a>(values: &'a mut Dict, keys: &[&str]) -> Option<&'a mut Value> {
    let (last, section) = keys.split_last()?;
    section.iter().try_fold(values, |values, key| dict_in(values, key))?.get_mut(*last)
}

/// A number where text is wanted becomes its text, and text where none is wanted is read as a variable's is.
fn loosen(path: &str, default: &serde_json::Value, value: &mut Value) {
    let read = match &*value {
        Value::Num(..) if takes_text(path, default) => value.to_i128().map(|number| Value::from(number.to_string())),
        Value::String(_, text) if !takes_text(path, default) && !default.is_array() => Some(parse_scalar(text)),
        _ => None,
    };
    if let Some(read) = read {
        *value = read;
    }
}

/// A key whose default is text, or nothing, takes text, whatever it looks like; figment would read `007` as a number.
fn takes_text(path: &str, default: &serde_json::Value) -> bool {
    default.is_string() || default.is_null() && !NUMBERS_WITHOUT_DEFAULT.contains(&path)
}

fn insert(values: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            values.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = values.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = section {
                insert(inner, rest, value);
            }
        }
    }
}

/// TOML's own scalars, for variables: numbers and booleans, and all else as text.
fn parse_scalar(text: &str) -> Value {
    if let Ok(number) = text.parse::<u64>() {
        Value::from(number)
    } else if let Ok(number) = text.parse::<i64>() {
        Value::from(number)
    } else if let Ok(bool) = text.parse::<bool>() {
        Value::from(bool)
    } else {
        Value::from(text)
    }
}

/// What Kubernetes sets in its pods for a service named `predlog`: `PREDLOG_SERVICE_HOST`, `PREDLOG_PORT`, `PREDLOG_PORT_8642_TCP_ADDR`.
fn is_of_kubernetes(key: &str) -> bool {
    key == "PORT" || key.starts_with("PORT_") || key.starts_with("SERVICE_")
}

/// A list, for variables: TOML's array, or texts with commas between them. An element that has a comma itself, as a regular expression may, needs the array.
fn parse_list(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('[') {
        let mut table: Dict = toml::from_str(&format!("list = {text}")).map_err(|error| error.message().replace('\n', ", "))?;
        return table.remove("list").filter(|_| table.is_empty()).ok_or_else(|| "it is more than an array".to_owned());
    }
    let elements = text.split(',').map(|element| Value::from(element.trim()));
    Ok(if text.trim().is_empty() { Value::from(Vec::<Value>::new()) } else { Value::from(elements.collect::<Vec<_>>()) })
}

/// The parser's message and place, but not its copy of the line: that may hold a secret.
fn parse_toml(name: &str, text: &str) -> Result<Dict, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message = error.message().replace('\n', ", ");
        format!("{name} line={line} column={column}: not TOML: {message}")
    })
}

/// Every key that there is, from the defaults.
struct Known {
    /// Full path to its default.
    leaves: BTreeMap<String, serde_json::Value>,
    tree: serde_json::Value,
}

impl Known {
    fn keys() -> Result<Self, Error> {
        let tree = serde_json::to_value(Config::default())
            .map_err(|error| Error::new(ErrorKind::Config, format!("the defaults cannot be listed: {error}")))?;
        let mut leaves = BTreeMap::new();
        collect("", &tree, &mut leaves);
        Ok(Known { leaves, tree })
    }

    /// Takes keys that do not exist out of `values`.
    fn check(&self, origin: &str, values: &mut Dict, section: &str, problems: &mut Vec<String>) {
        let here = section.split('.').filter(|part| !part.is_empty()).try_fold(&self.tree, |tree, part| tree.get(part));
        let Some(known) = here.and_then(serde_json::Value::as_object) else { return };
        values.retain(|key, value| {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            match (known.get(key), &mut *value) {
                // Names that are another program's, such as librdkafka's properties.
                (Some(serde_json::Value::Object(free)), Value::Dict(..)) if free.is_empty() => {}
                (Some(serde_json::Value::Object(_)), Value::Dict(_, inner)) => self.check(origin, inner, &path, problems),
                (Some(_), _) => {}
                (None, value) => {
                    let nearby = known.keys().map(String::as_str);
                    let hint = self.hint(key, nearby, section);
                    problems.push(format!("{origin}: unknown key {path}={}{hint}", shown_at(&path, value)));
                    return false;
                }
            }
            true
        });
    }

    /// The nearest key of the same section; else the sections that have a key of this name; else what there is.
    fn hint<'a>(&'a self, key: &str, nearby: impl Iterator<Item = &'a str> + Clone, section: &str) -> String {
        if let Some(name) = nearest(key, nearby.clone()) {
            return format!(": did you mean `{name}`?");
        }
        let elsewhere: Vec<String> = self
            .leaves
            .keys()
            .filter(|path| path.rsplit('.').next() == Some(key) && path.as_str() != key)
            .map(|path| format!("`{path}`"))
            .collect();
        if !elsewhere.is_empty() {
            return format!(": did you mean {}?", elsewhere.join(" or "));
        }
        let place = if section.is_empty() { "the top level".to_owned() } else { format!("[{section}]") };
        format!(": expected one of {place}'s keys: {}", nearby.collect::<Vec<_>>().join(", "))
    }

    fn unknown_variable(&self, name: &str) -> String {
        let names: Vec<String> = self.leaves.keys().map(|path| variable_of(path)).collect();
        let hint = nearest(name, names.iter().map(String::as_str)).map_or_else(
            || ": expected PREDLOG_<SECTION>__<KEY>, such as PREDLOG_DIRECT__STORE".to_owned(),
            |name| format!(": did you mean `{name}`?"),
        );
        // Its value is not shown: a variable that is not ours may be somebody's password.
        format!("variable={name}: unknown key{hint}")
    }
}

fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

fn collect(path: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, serde_json::Value>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                collect(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, leaves);
            }
        }
        leaf => {
            leaves.insert(path.to_owned(), leaf.clone());
        }
    }
}

//! How a configuration is checked, and how the check is answered.

use crate::connect::Config;
use serde::Serialize;

/// Knows the keys of a connector.
pub trait Validate: Send + Sync {
    /// The connector's class, in full.
    fn class(&self) -> &str;

    /// Whether a name, in full or short, means the class.
    fn is_class(&self, name: &str) -> bool;

    /// All keys: the connector's own first.
    fn definitions(&self) -> Vec<Definition>;

    /// Every key with its value and what is wrong with it. Asks nobody; nothing is changed.
    fn validate(&self, config: &Config) -> ConfigInfos;
}

/// What a key is, as the REST API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// The key.
    pub name: String,
    /// `STRING`, `INT`, `LONG`, `SHORT`, `BOOLEAN`, `LIST`, `CLASS` or `PASSWORD`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// It has no default.
    pub required: bool,
    /// The value when it is not given.
    pub default_value: Option<String>,
    /// `HIGH`, `MEDIUM` or `LOW`.
    pub importance: &'static str,
    /// What it is for.
    pub documentation: String,
    /// Keys that are shown together.
    pub group: Option<String>,
    /// Its place there.
    pub order_in_group: i32,
    /// How wide a form shows it: `SHORT`, `MEDIUM`, `LONG` or `NONE`.
    pub width: &'static str,
    /// How a form calls it.
    pub display_name: String,
    /// Keys whose values depend on this one's.
    pub dependents: Vec<String>,
}

/// A key's value, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigValue {
    /// The key.
    pub name: String,
    /// What is given, or the default. A secret is `[hidden]`.
    pub value: Option<String>,
    /// What else is possible, when that is a list.
    pub recommended_values: Vec<String>,
    /// What is wrong, in Connect's words.
    pub errors: Vec<String>,
    /// Whether a form shows it.
    pub visible: bool,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigInfo {
    /// What the key is.
    pub definition: Definition,
    /// What it is set to.
    pub value: ConfigValue,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigInfos {
    /// The connector's class, as the configuration has it.
    pub name: String,
    /// Errors of all keys together.
    pub error_count: usize,
    /// The groups of the keys.
    pub groups: Vec<String>,
    /// The keys.
    pub configs: Vec<ConfigInfo>,
}

//! A key that is known, and the check of its value.

use crate::connect::rest::{ConfigInfo, ConfigValue, Definition};

/// What a secret's value is shown as.
const HIDDEN: &str = "[hidden]";

/// What a key has when it is not given.
#[derive(Clone, Copy)]
pub(super) enum Default {
    Required,
    Null,
    Is(&'static str),
}

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// Not empty.
    Filled,
    /// A connector's name.
    Name,
    OneOf(&'static [&'static str]),
    List,
    Class,
    Password,
    Boolean,
    Short,
    /// From, to.
    Int(i64, i64),
    Long,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text | Kind::Filled | Kind::Name | Kind::OneOf(_) => "STRING",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
            Kind::Boolean => "BOOLEAN",
            Kind::Short => "SHORT",
            Kind::Int(..) => "INT",
            Kind::Long => "LONG",
        }
    }
}

/// One row of a table of keys.
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub importance: &'static str,
    pub group: &'static str,
    pub order: i32,
    pub width: &'static str,
    pub display: &'static str,
    pub doc: &'static str,
}

impl Key {
    pub fn definition(&self, name: String) -> Definition {
        Definition {
            name,
            kind: self.kind.name(),
            required: matches!(self.default, Default::Required),
            default_value: match self.default {
                Default::Is(value) => Some(value.to_owned()),
                Default::Required | Default::Null => None,
            },
            importance: self.importance,
            documentation: self.doc.to_owned(),
            group: Some(self.group.to_owned()),
            order_in_group: self.order,
            width: self.width,
            display_name: self.display.to_owned(),
            dependents: Vec::new(),
        }
    }

    /// The key as it is set: `given` is `None` when it is not there, or `null`.
    pub fn info(&self, given: Option<&str>) -> ConfigInfo {
        self.info_as(self.name, self.name, given)
    }

    /// The same for a key of a part, as of `value.converter.`: it is listed by its whole name, errors call it by its own, as in Connect.
    pub fn info_as(&self, listed: &str, called: &str, given: Option<&str>) -> ConfigInfo {
        let mut value = ConfigValue { name: listed.to_owned(), visible: true, ..ConfigValue::default() };
        match (given, self.default) {
            (Some(given), _) => match self.check(called, given) {
                Ok(()) => value.value = Some(if matches!(self.kind, Kind::Password) { HIDDEN } else { given.trim() }.to_owned()),
                Err(errors) => {
                    // A value that is not of its type has none.
                    value.value = if errors.len() > 1 { None } else { Some(given.trim().to_owned()) };
                    value.errors = errors;
                }
            },
            (None, Default::Is(default)) => value.value = Some(default.to_owned()),
            (None, Default::Null) => {}
            (None, Default::Required) => {
                value.errors.push(format!("Missing required configuration \"{called}\" which has no default value."));
            }
        }
        ConfigInfo { definition: self.definition(listed.to_owned()), value }
    }

    /// # Errors
    /// In Connect's words. There are two when a number is none, and is bounded: its bounds refuse it too.
    fn check(&self, called: &str, given: &str) -> Result<(), Vec<String>> {
        let value = given.trim();
        let wrong = |why: String| vec![format!("Invalid value {given} for configuration {called}: {why}")];
        let number = |kind: &str| value.parse::<i64>().map_err(|_| wrong(format!("Not a number of type {kind}")));
        match self.kind {
            Kind::Text | Kind::List | Kind::Password => Ok(()),
            Kind::Filled | Kind::Class if value.is_empty() => Err(wrong("String may not be empty".to_owned())),
            Kind::Filled | Kind::Class => Ok(()),
            Kind::Name => name_error(value).map_or(Ok(()), |why| Err(wrong(why))),
            Kind::OneOf(names) if names.iter().any(|name| name.eq_ignore_ascii_case(value)) => Ok(()),
            Kind::OneOf(names) => Err(wrong(format!("String must be one of: {}", names.join(", ")))),
            Kind::Boolean if ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)) => Ok(()),
            Kind::Boolean => Err(wrong("Expected value to be either true or false".to_owned())),
            Kind::Short => value.parse::<i16>().map(drop).map_err(|_| wrong("Not a number of type SHORT".to_owned())),
            Kind::Long => number("LONG").map(drop),
            Kind::Int(from, to) => {
                let int =
                    number("INT").and_then(|int| i32::try_from(int).map_err(|_| wrong("Not a number of type INT".to_owned())));
                let int = int.map_err(|mut errors| {
                    errors.push(format!("Invalid value null for configuration {called}: Value must be non-null"));
                    errors
                })?;
                match i64::from(int) {
                    int if int < from => Err(wrong(format!("Value must be at least {from}"))),
                    int if int > to => Err(wrong(format!("Value must be no more than {to}"))),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Why a connector cannot have that name.
fn name_error(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("String may not be empty".to_owned());
    }
    let control: Vec<_> = name.chars().filter(|c| c.is_ascii_control()).map(|c| u32::from(c).to_string()).collect();
    if control.is_empty() {
        return None;
    }
    Some(format!("String may not contain control sequences but had the following ASCII chars: {}", control.join(", ")))
}

//! Changes of connectors: checked, then kept, then done.

use super::error::Problem;
use super::tasks::{PartitionOffset, Tasks};
use super::validate::Validate;
use crate::connect::{Config, Connector, Store, TargetState};
use axum::http::StatusCode;
use parking_lot::Mutex;
use std::io;

/// More connectors than this are refused.
const MAX_CONNECTORS: usize = 1_024;
const NAME: &str = "name";
const CLASS: &str = "connector.class";

/// What a configuration was put to.
pub(super) struct Put {
    pub connector: Connector,
    /// There was no connector of that name.
    pub created: bool,
}

/// All connectors, and who runs them.
pub struct Herder {
    store: Store,
    tasks: Box<dyn Tasks>,
    validate: Box<dyn Validate>,
    /// One change at a time, as Connect makes them; who only asks does not wait.
    changing: Mutex<()>,
}

impl Herder {
    /// Begins the connectors of the store that are to run.
    pub fn start(store: Store, tasks: Box<dyn Tasks>, validate: Box<dyn Validate>) -> Herder {
        for connector in store.all().iter().filter(|connector| connector.state == TargetState::Running) {
            tasks.start(connector);
        }
        Herder { store, tasks, validate, changing: Mutex::new(()) }
    }

    /// Ends all connectors; what they are to do stays in the store, for the next start.
    pub fn shut_down(&self) {
        let _changing = self.changing.lock();
        self.tasks.shut_down();
    }

    pub(super) fn all(&self) -> Vec<Connector> {
        self.store.all()
    }

    pub(super) fn tasks(&self) -> &dyn Tasks {
        &*self.tasks
    }

    pub(super) fn validator(&self) -> &dyn Validate {
        &*self.validate
    }

    pub(super) fn get(&self, name: &str) -> Result<Connector, Problem> {
        self.find(name, |name| format!("Connector {name} not found"))
    }

    /// Connect words this in several ways, and clients may read them.
    pub(super) fn find(&self, name: &str, missing: impl FnOnce(&str) -> String) -> Result<Connector, Problem> {
        self.store.get(name).ok_or_else(|| Problem::not_found(missing(name)))
    }

    pub(super) fn create(&self, name: &str, config: Config, state: TargetState) -> Result<Connector, Problem> {
        let _changing = self.changing.lock();
        let config = self.checked(name, config)?;
        if self.store.get(name).is_some() {
            return Err(Problem::conflict(format!("Connector {name} already exists")));
        }
        self.add(name, config, state)
    }

    pub(super) fn put(&self, name: &str, config: Config) -> Result<Put, Problem> {
        let _changing = self.changing.lock();
        let config = self.checked(name, config)?;
        match self.store.get(name) {
            Some(before) => Ok(Put { connector: self.reconfigure(before, config)?, created: false }),
            None => Ok(Put { connector: self.add(name, config, TargetState::Running)?, created: true }),
        }
    }

    /// Changes some keys; `None` removes one.
    pub(super) fn patch(&self, name: &str, changes: Config) -> Result<Connector, Problem> {
        let _changing = self.changing.lock();
        let before = self.get(name)?;
        let mut config = before.config.clone();
        for (key, value) in changes {
            match value {
                Some(value) => config.insert(key, Some(value)),
                None => config.remove(&key),
            };
        }
        let config = self.checked(name, config)?;
        self.reconfigure(before, config)
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.changing.lock();
        self.get(name)?;
        // Forgotten first: a crash between the two must not bring it back.
        self.store.remove(name).map_err(|error| unwritten(name, &error))?;
        self.tasks.stop(name);
        Ok(())
    }

    pub(super) fn set_state(&self, name: &str, state: TargetState) -> Result<(), Problem> {
        let _changing = self.changing.lock();
        let before = self.find(name, |name| format!("Unknown connector {name}"))?;
        if before.state == state { Ok(()) } else { self.keep(Connector { state, ..before }) }
    }

    /// Ends the connector's tasks and begins them again, if it is to run.
    pub(super) fn restart_tasks(&self, name: &str) {
        let _changing = self.changing.lock();
        if let Some(connector) = self.store.get(name).filter(|connector| connector.state == TargetState::Running) {
            self.tasks.start(&connector);
        }
    }

    /// `None` forgets all offsets.
    pub(super) fn change_offsets(&self, name: &str, changes: Option<&[PartitionOffset]>) -> Result<(), Problem> {
        let _changing = self.changing.lock();
        let connector = self.get(name)?;
        if connector.state != TargetState::Stopped {
            return Err(Problem::bad_request(format!(
                "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint"
            )));
        }
        let changed = match changes {
            Some(changes) => self.tasks.alter_offsets(&connector, changes),
            None => self.tasks.reset_offsets(&connector),
        };
        changed.map_err(|why| Problem::internal(format!("Failed to modify offsets for sink connector {name}: {why}")))
    }

    /// The configuration, with its name, if it has no errors.
    fn checked(&self, name: &str, mut config: Config) -> Result<Config, Problem> {
        match config.get(NAME) {
            None => drop(config.insert(NAME.to_owned(), Some(name.to_owned()))),
            Some(other) if other.as_deref() == Some(name) => {}
            Some(other) => {
                let other = other.as_deref().unwrap_or("null");
                return Err(Problem::bad_request(format!(
                    "Connector name configuration ({other}) doesn't match connector name in the URL ({name})"
                )));
            }
        }
        self.class_of(&config)?;
        let infos = self.validate.validate(&config);
        if infos.error_count == 0 {
            return Ok(config);
        }
        let errors: Vec<_> = infos.configs.iter().flat_map(|info| &info.value.errors).map(String::as_str).collect();
        Err(Problem::bad_request(format!(
            "Connector configuration is invalid and contains the following {} error(s):\n{}\nYou can also find the above list of errors at the endpoint `/connector-plugins/{{connectorType}}/config/validate`",
            infos.error_count,
            errors.join("\n")
        )))
    }

    /// The class that a configuration names, in its own words, if there is one.
    pub(super) fn class_of<'a>(&self, config: &'a Config) -> Result<&'a str, Problem> {
        let Some(class) = config.get(CLASS).and_then(Option::as_deref) else {
            let entries: Vec<_> =
                config.iter().map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("null"))).collect();
            return Err(Problem::bad_request(format!("Connector config {{{}}} contains no connector type", entries.join(", "))));
        };
        if self.validate.is_class(class) {
            return Ok(class);
        }
        let (known, version) = (self.validate.class(), super::VERSION);
        Err(Problem::bad_request(format!(
            "Failed to find any class that implements Connector and which name matches {class}, available connectors are: PluginDesc{{klass=class {known}, name='{known}', version='{version}', encodedVersion={version}, type=sink, typeName='sink', location='classpath'}}"
        )))
    }

    fn add(&self, name: &str, config: Config, state: TargetState) -> Result<Connector, Problem> {
        if self.store.count() >= MAX_CONNECTORS {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("There are {MAX_CONNECTORS} connectors, and no more fit: delete one, or use another worker"),
            ));
        }
        let connector = Connector { name: name.to_owned(), config, state, tasks: 0 };
        self.keep(connector.clone())?;
        Ok(connector)
    }

    /// What comes back has the tasks of before, as Connect's answer has.
    fn reconfigure(&self, before: Connector, config: Config) -> Result<Connector, Problem> {
        let tasks = before.tasks;
        if config != before.config {
            self.keep(Connector { config: config.clone(), ..before.clone() })?;
        }
        Ok(Connector { config, tasks, ..before })
    }

    /// Keeps a connector, then has done what it says.
    fn keep(&self, mut connector: Connector) -> Result<(), Problem> {
        match connector.state {
            TargetState::Running => {
                connector.tasks = connector.get("tasks.max").and_then(|max| max.trim().parse().ok()).unwrap_or(1)
            }
            TargetState::Stopped => connector.tasks = 0,
            TargetState::Paused => {}
        }
        self.store.put(connector.clone()).map_err(|error| unwritten(&connector.name, &error))?;
        match connector.state {
            TargetState::Running => self.tasks.start(&connector),
            TargetState::Paused | TargetState::Stopped => self.tasks.stop(&connector.name),
        }
        Ok(())
    }
}

fn unwritten(name: &str, error: &io::Error) -> Problem {
    Problem::internal(format!("cannot keep connector={name} in --data-dir: {error}; see to its space and its permissions"))
}

//! What is logged, by logger: a logger is a `tracing` target, `predlog::connect` for one, and all below it.

use super::body::Body;
use super::{Problem, State};
use axum::Json;
use axum::extract::{self, Path, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The logger that all others are below.
const ROOT: &str = "root";
/// Loggers that are always listed.
const KNOWN: [&str; 5] = ["predlog", "predlog::archive", "predlog::connect", "predlog::ship", "rdkafka"];
/// Loggers that have a level at one time.
const MAX_LOGGERS: usize = 64;
const MAX_NAME: usize = 128;

/// How much is logged, by Connect's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Nothing.
    Off,
    /// What failed; Connect's FATAL too.
    Error,
    /// And what may fail.
    Warn,
    /// And what is worth knowing.
    Info,
    /// And what helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// From its name, in any case.
    pub fn parse(name: &str) -> Option<Level> {
        Some(match name.to_ascii_uppercase().as_str() {
            "OFF" => Level::Off,
            "ERROR" | "FATAL" => Level::Error,
            "WARN" => Level::Warn,
            "INFO" => Level::Info,
            "DEBUG" => Level::Debug,
            "TRACE" | "ALL" => Level::Trace,
            _ => return None,
        })
    }

    /// As `RUST_LOG` has it.
    fn directive(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// A logger's level, as answers show it.
#[derive(Clone, Copy, Serialize)]
struct Set {
    level: Level,
    /// Milliseconds since 1970; `null` when it is as at the start.
    last_modified: Option<u64>,
}

type Apply = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// The levels, and who applies them.
pub struct Loggers {
    apply: Box<Apply>,
    levels: Mutex<BTreeMap<String, Set>>,
}

impl fmt::Debug for Loggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loggers")
    }
}

impl Loggers {
    /// `apply` is called with all levels as `RUST_LOG` has them, `info,predlog::connect=debug`, after each change.
    pub fn new(level: Level, apply: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Loggers {
        let root = (ROOT.to_owned(), Set { level, last_modified: None });
        Loggers { apply: Box::new(apply), levels: Mutex::new(BTreeMap::from([root])) }
    }

    /// The level of the logger itself, or of the nearest one that it is below.
    fn level(levels: &BTreeMap<String, Set>, name: &str) -> Option<Set> {
        let above = std::iter::successors(Some(name), |name| name.rsplit_once("::").map(|(above, _)| above));
        above.chain([ROOT]).find_map(|name| levels.get(name)).copied()
    }

    fn set(&self, name: &str, level: Level) -> Result<Vec<String>, Problem> {
        let in_words = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-'));
        if !in_words || name.is_empty() || name.len() > MAX_NAME {
            return Err(Problem::bad_request(format!(
                "logger={name} is not a logger's name: expected one like predlog::connect"
            )));
        }
        let mut levels = self.levels.lock();
        let mut changed = levels.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let set = Set { level, last_modified: u64::try_from(now).ok() };
        let below = |other: &str| name == ROOT || other == name || other.starts_with(&format!("{name}::"));
        let others = KNOWN.into_iter().map(str::to_owned).chain(levels.keys().cloned()).chain([name.to_owned()]);
        let mut affected: Vec<_> = others.filter(|other| below(other)).collect();
        affected.sort();
        affected.dedup();
        changed.extend(affected.iter().map(|name| (name.clone(), set)));
        if changed.len() > MAX_LOGGERS {
            return Err(Problem::bad_request(format!(
                "logger={name} would be one more than {MAX_LOGGERS}: set one that has a level"
            )));
        }
        let directives = changed.iter().map(|(name, set)| match name.as_str() {
            ROOT => set.level.directive().to_owned(),
            name => format!("{name}={}", set.level.directive()),
        });
        (self.apply)(&directives.collect::<Vec<_>>().join(",")).map_err(Problem::internal)?;
        *levels = changed;
        Ok(affected)
    }
}

#[derive(Deserialize)]
pub(super) struct Request {
    level: Option<String>,
}

/// `GET /admin/loggers`.
pub(super) async fn list(state: extract::State<State>) -> impl IntoResponse {
    let levels = state.loggers.levels.lock();
    let mut all = levels.clone();
    for name in KNOWN {
        if let Some(set) = Loggers::level(&levels, name) {
            all.insert(name.to_owned(), set);
        }
    }
    Json(all)
}

/// `GET /admin/loggers/{name}`.
pub(super) async fn read(state: extract::State<State>, Path(name): Path<String>) -> Result<impl IntoResponse, Problem> {
    let levels = state.loggers.levels.lock();
    let known = KNOWN.contains(&name.as_str()) || levels.contains_key(&name);
    let level = if known { Loggers::level(&levels, &name) } else { None };
    level.map(Json).ok_or_else(|| Problem::not_found(format!("Logger {name} not found.")))
}

/// `PUT /admin/loggers/{name}`: the loggers whose level is set by it. There is one worker: `scope=cluster` is the same, and answered with 204.
pub(super) async fn set(
    state: extract::State<State>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    Body(request): Body<Request>,
) -> Result<Response, Problem> {
    let Some(level) = request.level else {
        return Err(Problem::bad_request("Desired 'level' parameter was not specified in request."));
    };
    let parsed = Level::parse(&level).ok_or_else(|| Problem::not_found(format!("invalid log level '{level}'.")))?;
    let affected = state.loggers.set(&name, parsed)?;
    let cluster = query.iter().any(|(key, value)| key == "scope" && value.eq_ignore_ascii_case("cluster"));
    Ok(if cluster { StatusCode::NO_CONTENT.into_response() } else { Json(affected).into_response() })
}

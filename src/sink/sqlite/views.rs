//! A view for each model, with a column for each feature. New features are found while lines are split, by comparing their keys with those of
//! the model's last record; what is new is written down, and the view made again, once a transaction.

use super::line::{INPUTS, OUTPUTS, unescape};
use super::view_sql::{self, Columns, Feature};
use crate::json::scan::{end_of_string, end_of_value};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::collections::{HashMap, HashSet};

/// Models that get a view. Those that come later are in the table only.
pub const MAX_VIEWS: usize = 256;
/// Features that a view lifts to columns: SQLite allows 2,000 columns. Those that come later are in `inputs` and `outputs` only.
pub const MAX_FEATURES: usize = 1_900;
/// Features with a longer key (bytes of JSON) get no column.
pub const MAX_KEY_BYTES: usize = 256;

/// How a value that is not an object stands among the keys.
pub(super) const WHOLE: &[u8] = b"$";

/// What is known of each model's features.
#[derive(Debug)]
pub(super) struct Models {
    enabled: bool,
    by_name: HashMap<Box<[u8]>, usize>,
    models: Vec<Model>,
    current: Option<usize>,
    changed: Vec<usize>,
    schema_version: i64,
}

#[derive(Debug)]
struct Model {
    /// Raw JSON, with its quotes.
    name: Box<[u8]>,
    sides: [Side; 2],
    changed: bool,
    /// There is no view of it, and will be none.
    off: bool,
}

/// The features of `inputs` or of `outputs`.
#[derive(Debug, Default)]
struct Side {
    /// The last record's keys, each `"key":` as it stands in the line, and where each ends.
    last: Vec<u8>,
    ends: Vec<usize>,
    known: HashSet<Box<[u8]>>,
    fresh: Vec<Box<[u8]>>,
    full: bool,
}

impl Models {
    pub(super) fn new(enabled: bool) -> Self {
        Models { enabled, by_name: HashMap::new(), models: Vec::new(), current: None, changed: Vec::new(), schema_version: 0 }
    }

    /// Nothing is known any more; the next transaction reads it again.
    pub(super) fn forget(&mut self) {
        *self = Models::new(self.enabled);
    }

    /// At the start of a transaction: reads what another process may have changed.
    pub(super) fn refresh(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let version = schema_version(conn)?;
        if version == self.schema_version {
            return Ok(());
        }
        self.forget();
        let mut select = conn.prepare_cached("SELECT model_name FROM models")?;
        let mut names = select.query([])?;
        while let Some(row) = names.next()? {
            let raw = view_sql::json_string(row.get_ref(0)?.as_bytes().unwrap_or_default());
            self.add(&raw);
        }
        let mut select = conn.prepare_cached("SELECT model_name, field, key FROM features")?;
        let mut features = select.query([])?;
        while let Some(row) = features.next()? {
            let raw = view_sql::json_string(row.get_ref(0)?.as_bytes().unwrap_or_default());
            let side = usize::from(row.get_ref(1)?.as_bytes().unwrap_or_default() == b"outputs");
            if let Some(&model) = self.by_name.get(raw.as_slice()) {
                self.models[model].sides[side].known.insert(row.get_ref(2)?.as_bytes().unwrap_or_default().into());
            }
        }
        self.models.iter_mut().for_each(Model::check_full);
        self.schema_version = version;
        Ok(())
    }

    fn add(&mut self, raw: &[u8]) -> usize {
        let at = self.models.len();
        self.models.push(Model { name: raw.into(), sides: Default::default(), changed: false, off: false });
        self.by_name.insert(raw.into(), at);
        at
    }

    /// The features that follow are of this model; `raw` is its name's JSON.
    #[inline]
    pub(super) fn select(&mut self, raw: &[u8]) {
        if !self.enabled || self.current.is_some_and(|at| *self.models[at].name == *raw) {
            return;
        }
        self.current = self.by_name.get(raw).copied();
        if self.current.is_none() && self.models.len() < MAX_VIEWS {
            self.current = Some(self.add(raw));
        }
    }

    /// The index behind the value that starts at `at`, whose keys are looked at on the way.
    #[inline]
    pub(super) fn end_of_features(&mut self, field: usize, line: &[u8], at: usize) -> Option<usize> {
        let Some(current) = self.current else { return end_of_value(line, at) };
        let model = &mut self.models[current];
        let side = &mut model.sides[usize::from(field == OUTPUTS)];
        if model.off || side.full {
            return end_of_value(line, at);
        }
        let end = if line.get(at) == Some(&b'{') {
            side.walk(line, at + 1)?
        } else {
            let end = end_of_value(line, at)?;
            // A side that is not there (actuals have no inputs) needs no column.
            if line.get(at..end) != Some(b"null") {
                side.see(WHOLE);
            }
            end
        };
        if !side.fresh.is_empty() && !model.changed {
            model.changed = true;
            self.changed.push(current);
        }
        Some(end)
    }

    /// Before the commit: writes down the new features, and makes the views of their models.
    pub(super) fn publish(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        for at in std::mem::take(&mut self.changed) {
            let model = &mut self.models[at];
            conn.execute_batch("SAVEPOINT view")?;
            match model.publish(conn) {
                Ok(()) => conn.execute_batch("RELEASE view")?,
                // What SQL refuses to have a view of must not keep its records from being stored.
                Err(error)
                    if error.sqlite_error_code().is_none_or(|code| matches!(code, ErrorCode::Unknown | ErrorCode::TooBig)) =>
                {
                    conn.execute_batch("ROLLBACK TO view; RELEASE view")?;
                    let model_name = String::from_utf8_lossy(&model.name);
                    tracing::warn!(%model_name, %error, "cannot make a view of the model; its records are in the table predictions");
                    model.off = true;
                }
                Err(error) => return Err(error),
            }
            model.changed = false;
            model.sides.iter_mut().for_each(|side| side.fresh.clear());
            model.check_full();
        }
        self.schema_version = schema_version(conn)?;
        Ok(())
    }
}

fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

impl Side {
    /// The index behind the object whose first key, or closing brace, stands at `at`.
    #[inline]
    fn walk(&mut self, line: &[u8], mut at: usize) -> Option<usize> {
        let (mut index, mut start) = (0, 0);
        loop {
            match line.get(at)? {
                b'}' => return Some(at + 1),
                b',' if index > 0 => at += 1,
                _ => {}
            }
            let rest = line.get(at..)?;
            match self.ends.get(index) {
                Some(&end) if rest.starts_with(&self.last[start..end]) => {
                    at += end - start;
                    start = end;
                }
                _ => {
                    at = self.learn(line, at, index, start)?;
                    start = self.last.len();
                }
            }
            index += 1;
            at = end_of_value(line, at)?;
        }
    }

    /// The key at `at` is not the one that stood there last; returns where its value starts.
    #[cold]
    fn learn(&mut self, line: &[u8], at: usize, index: usize, start: usize) -> Option<usize> {
        if line.get(at) != Some(&b'"') {
            return None;
        }
        let end = end_of_string(line, at)?;
        if line.get(end) != Some(&b':') {
            return None;
        }
        self.see(&line[at..end]);
        self.ends.truncate(index);
        self.last.truncate(start);
        self.last.extend_from_slice(&line[at..=end]);
        self.ends.push(self.last.len());
        Some(end + 1)
    }

    #[inline]
    fn see(&mut self, key: &[u8]) {
        if !self.known.contains(key) && key.len() <= MAX_KEY_BYTES && self.known.len() < MAX_FEATURES {
            self.known.insert(key.into());
            self.fresh.push(key.into());
        }
    }
}

impl Model {
    fn check_full(&mut self) {
        let features: usize = self.sides.iter().map(|side| side.known.len()).sum();
        if features >= MAX_FEATURES {
            for side in self.sides.iter_mut().filter(|side| !side.full) {
                *side = Side { full: true, ..Side::default() };
            }
        }
    }

    fn publish(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut name = String::new();
        unescape(&self.name, &mut name);
        let view = match view_of(conn, &name)? {
            Some(view) => view,
            None if count(conn, "SELECT count(*) FROM models")? >= MAX_VIEWS as i64 => {
                self.off = true;
                return Ok(());
            }
            None => new_view(conn, &name)?,
        };
        let mut features = features_of(conn, &name)?;
        let mut columns = Columns::of(&features);
        let mut insert = conn
            .prepare_cached("INSERT INTO features(model_name, field, position, key, column_name) VALUES(?1, ?2, ?3, ?4, ?5)")?;
        for (side, field) in self.sides.iter().zip([INPUTS, OUTPUTS]) {
            for key in &side.fresh {
                if features.len() >= MAX_FEATURES {
                    break;
                }
                let Some(feature) = columns.feature(field, String::from_utf8_lossy(key).into_owned()) else { continue };
                insert.execute(params![name, super::line::KEYS[field], features.len() as i64, feature.key, feature.column])?;
                features.push(feature);
            }
        }
        conn.execute_batch(&view_sql::drop_view(&view))?;
        conn.execute_batch(&view_sql::create_view(&view, &name, &features))
    }
}

fn count(conn: &Connection, sql: &str) -> rusqlite::Result<i64> {
    conn.query_row(sql, [], |row| row.get(0))
}

fn view_of(conn: &Connection, model: &str) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT view_name FROM models WHERE model_name = ?1", params![model], |row| row.get(0)).optional()
}

/// Gives the model a name for its view that nothing in the file has, in any case of letters.
fn new_view(conn: &Connection, model: &str) -> rusqlite::Result<String> {
    let base = format!("model_{}", view_sql::without_nul(model));
    let mut taken = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT name FROM sqlite_master UNION ALL SELECT view_name FROM models) WHERE name = ?1 COLLATE NOCASE",
    )?;
    let mut view = base.clone();
    let mut number = 1;
    while taken.query_row(params![view], |row| row.get::<_, i64>(0))? > 0 {
        number += 1;
        view = format!("{base}_{number}");
    }
    conn.execute("INSERT INTO models(model_name, view_name) VALUES(?1, ?2)", params![model, view])?;
    Ok(view)
}

fn features_of(conn: &Connection, model: &str) -> rusqlite::Result<Vec<Feature>> {
    let mut select =
        conn.prepare_cached("SELECT field, key, column_name FROM features WHERE model_name = ?1 ORDER BY position")?;
    let features = select.query_map(params![model], |row| {
        let field = if row.get_ref(0)?.as_bytes()? == b"outputs" { OUTPUTS } else { INPUTS };
        Ok(Feature { field, key: row.get(1)?, column: row.get(2)? })
    })?;
    features.collect()
}

//! What turned out to be true of a prediction, told later: a record of its own, of the model `<model_name>.actuals`.

use super::{MAX_MODEL_NAME_BYTES, Prediction};
use crate::clock::Timestamp;
use crate::ledger::LEDGER_MODEL;
use serde::Serialize;

/// What a model's name ends in where its actuals are kept.
pub const ACTUALS_SUFFIX: &str = ".actuals";
/// The longest `model_name` that can have actuals, in bytes of UTF-8: with [`ACTUALS_SUFFIX`] it is a model's name too.
pub const MAX_ACTUALS_MODEL_NAME_BYTES: usize = MAX_MODEL_NAME_BYTES - ACTUALS_SUFFIX.len();

/// The actual values for a prediction that was logged before, borrowed for the time of the call.
///
/// They are kept as a record of the model `<model_name>.actuals`, with the prediction's `id`, null as `inputs` and the values as `outputs`: in files,
/// columns and a view of their own, which join with the prediction on `id`.
///
/// ```
/// # fn main() -> Result<(), predlog::Error> {
/// use predlog::{Actuals, Logger, LoggerSettings, Outcome, Prediction, sink::memory::MemorySink};
///
/// #[derive(serde::Serialize)]
/// struct Wine { alcohol: f64 }
/// #[derive(serde::Serialize)]
/// struct Quality { quality: f64 }
///
/// # let settings = LoggerSettings { durability: predlog::Durability::Memory, ..LoggerSettings::default() };
/// # let (logger, guard) = Logger::builder(settings).sink(Box::new(MemorySink::new())).open()?;
/// let (wine, predicted) = (Wine { alcohol: 9.4 }, Quality { quality: 5.2 });
/// let _ = logger.log(Prediction::new("wine", "1", &wine, &predicted).id("order-17"));
///
/// // Weeks later, when somebody has tasted it; and again, when that was corrected.
/// let tasted = Actuals::new("order-17", "wine", &Quality { quality: 6.0 });
/// assert!(matches!(logger.actuals(tasted), Outcome::Accepted { .. }));
/// let corrected = Actuals::new("order-17", "wine", &Quality { quality: 5.5 }).revision("2");
/// assert!(matches!(logger.actuals(corrected), Outcome::Accepted { .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Actuals<'a, A: ?Sized> {
    id: &'a str,
    model_name: &'a str,
    values: &'a A,
    model_version: Option<&'a str>,
    timestamp: Option<Timestamp>,
    revision: Option<&'a str>,
}

impl<'a, A: Serialize + ?Sized> Actuals<'a, A> {
    /// What was true of the prediction `id` of the model `model_name`, whose name has at most [`MAX_ACTUALS_MODEL_NAME_BYTES`] bytes. `values` are any
    /// `Serialize`, an object as a rule; give them the names that the outputs have.
    pub fn new(id: &'a str, model_name: &'a str, values: &'a A) -> Self {
        Actuals { id, model_name, values, model_version: None, timestamp: None, revision: None }
    }

    /// The version that made the prediction. Not needed for the join.
    #[must_use]
    pub fn model_version(mut self, model_version: &'a str) -> Self {
        self.model_version = Some(model_version);
        self
    }

    /// When the values became known. Without it: the time of the call.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Which telling of these values it is, when they are corrected; kept as `revision` in the record's metadata.
    #[must_use]
    pub fn revision(mut self, revision: &'a str) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Gives the record that keeps them to `log`.
    pub(crate) fn as_prediction<R>(&self, log: impl FnOnce(Prediction<'_, (), A>) -> R) -> R {
        let name = actuals_of(self.model_name);
        let metadata = self.revision.map(|revision| ("revision", revision));
        let mut prediction = Prediction::new(&name, self.model_version.unwrap_or_default(), &(), self.values).id(self.id);
        prediction.timestamp = self.timestamp;
        prediction.metadata = metadata.as_slice();
        log(prediction)
    }
}

/// The model that keeps the actuals of `model_name`. A name that no prediction can have stays as it is, to be refused for the same reason.
pub fn actuals_of(model_name: &str) -> String {
    let suffix = if model_name.is_empty() || model_name == LEDGER_MODEL { "" } else { ACTUALS_SUFFIX };
    [model_name, suffix].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::encode::{Invalid, encode};

    fn line(actuals: &Actuals<'_, f64>) -> Result<String, Invalid> {
        let mut out = Vec::new();
        actuals.as_prediction(|prediction| encode(&mut out, &prediction, Timestamp::from_micros(0), 1 << 20))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn are_a_record_of_their_own_model_with_the_predictions_id() {
        let plain = line(&Actuals::new("i", "wine", &6.5)).unwrap();
        let head = r#"{"timestamp":"1970-01-01T00:00:00.000000Z","model_name":"wine.actuals","id":"i","#;
        assert_eq!(plain, format!(r#"{head}"inputs":null,"outputs":6.5"#));
        let known = Timestamp::from_micros(1_000_000);
        let all = line(&Actuals::new("i", "wine", &6.5).model_version("7").timestamp(known).revision("2")).unwrap();
        let head = head.replace("00:00:00", "00:00:01");
        assert_eq!(all, format!(r#"{head}"model_version":"7","inputs":null,"outputs":6.5,"metadata":{{"revision":"2"}}"#));
    }

    #[test]
    fn need_an_id_and_a_name_that_has_room_for_the_suffix() {
        let longest = "m".repeat(MAX_ACTUALS_MODEL_NAME_BYTES);
        assert!(line(&Actuals::new("i", &longest, &0.0)).is_ok());
        assert_eq!(line(&Actuals::new("i", &format!("{longest}m"), &0.0)), Err(Invalid::ModelName));
        assert_eq!(line(&Actuals::new("i", "", &0.0)), Err(Invalid::ModelName));
        assert_eq!(line(&Actuals::new("i", LEDGER_MODEL, &0.0)), Err(Invalid::ReservedName));
        assert_eq!(line(&Actuals::new("", "m", &0.0)), Err(Invalid::Id));
    }
}

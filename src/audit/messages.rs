//! A broker's messages, as the lines that they are.

use super::Run;
use super::tally::HOUR;
use crate::ledger::is_ledger;
use crate::record::{raw_model_name, timestamp_of_line, writer_of_line};
use std::collections::HashMap;

/// Rows after which the progress is told.
const STEP: u64 = 65_536;

/// The numbers of models, by the raw text of their names.
pub(super) type Models = HashMap<Vec<u8>, i64>;

impl Run<'_> {
    /// A line of a message.
    pub(super) fn message_line(&mut self, models: &mut Models, line: &[u8]) {
        let (Some((writer, seq)), Some(timestamp), Some(name)) =
            (writer_of_line(line), timestamp_of_line(line), raw_model_name(line))
        else {
            self.tally.foreign += 1;
            return;
        };
        // Another configuration's ledger, whose topic the template matches too.
        if is_ledger(writer) {
            return;
        }
        let model = match models.get(name) {
            Some(model) => *model,
            None => {
                let quoted = [b"\"", name, b"\""].concat();
                let model = self.tally.cells.model(&serde_json::from_slice::<String>(&quoted).unwrap_or_default());
                models.insert(name.to_vec(), model);
                model
            }
        };
        let place = self.tally.cells.at(model, timestamp.div_euclid(HOUR));
        let writer = self.tally.writer(writer);
        self.tally.row(writer, seq, timestamp, place);
        if self.tally.rows.is_multiple_of(STEP) {
            self.looked_at();
        }
    }
}

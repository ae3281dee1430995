//! New columns, from the line that has them and those that come behind it.

use crate::format::infer::Inference;
use crate::format::schema::ModelSchema;
use crate::record::raw_model_name;

/// How many lines are looked at for the type of a new column: so that a number which happens to be whole in the first line is not taken for an integer.
const AHEAD: usize = 1_000;
/// After this many lines that taught nothing, in a row, those that are looked at get fewer: of `2ⁿ` one.
const MAX_SHIFT: u32 = 10;

/// Widens a schema.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    /// Lines with a new field that are passed over before the next is looked at.
    pause: u32,
    fruitless: u32,
}

impl Learner {
    /// The schema with the columns that this line has and `schema` has not; `None` if there are none. It is not looked for in each line when those
    /// before taught nothing: a field may be one that gets no column, or one whose column somebody refuses.
    pub(crate) fn learn<'a>(
        &mut self,
        schema: &ModelSchema,
        line: &'a [u8],
        ahead: impl Iterator<Item = &'a [u8]>,
    ) -> Option<ModelSchema> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let model = raw_model_name(line);
        let mut inference = Inference::new();
        let same_model = ahead.filter(|other| raw_model_name(other) == model);
        for line in std::iter::once(line).chain(same_model.take(AHEAD)) {
            // A line that is no JSON teaches nothing; it is refused when its turn comes.
            let _ = inference.push_line(line);
        }
        let mut grown = schema.clone();
        if grown.merge(&inference.schema()) {
            self.fruitless = 0;
            return Some(grown);
        }
        self.fruitless = (self.fruitless + 1).min(MAX_SHIFT);
        self.pause = (1 << self.fruitless) - 1;
        None
    }
}

//! A language for choosing records by what stands in them: compiled once, then asked of each record, in time and memory that the
//! expression's length bounds. Pure: knows records, and nothing of who reads them. The grammar is in docs/GRPC.md, the reasons in
//! docs/adr/0012.
//!
//! - `token`: text to words; `parse`: words to a `Program`
//! - `program`: a row of tests with forward jumps; it has no loop and no call, so it ends
//! - `test`: one comparison, of a record or of all records that a batch may hold

mod parse;
mod program;
mod test;
#[cfg(test)]
mod tests;
mod token;

use floodmark_proto::batch::{BatchHeader, Record};

use program::Program;
use test::Facts;

/// Longest expression.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses and negations.
pub const DEPTH_MAX: usize = 32;
/// Comparisons of one expression.
pub const TESTS_MAX: usize = 100;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Filter(Program);

/// Why an expression is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {message}")]
pub struct FilterError {
    /// Where in the expression, in bytes.
    pub at: usize,
    /// What is wrong there, and what would be right.
    pub message: String,
}

impl FilterError {
    fn new(at: usize, message: impl Into<String>) -> FilterError {
        FilterError { at, message: message.into() }
    }
}

impl Filter {
    /// Compiles an expression.
    pub fn compile(expression: &str) -> Result<Filter, FilterError> {
        if expression.len() > EXPRESSION_BYTES_MAX {
            let message = format!("an expression has {EXPRESSION_BYTES_MAX} bytes at most");
            return Err(FilterError::new(EXPRESSION_BYTES_MAX, message));
        }
        Ok(Filter(parse::parse(token::tokens(expression)?, expression.len())?))
    }

    /// Whether it is true of a record.
    #[must_use]
    pub fn matches(&self, record: &Record<'_>) -> bool {
        self.0.run(record)
    }

    /// False where it is true of no record of a batch, by the batch's header alone.
    #[must_use]
    pub fn may_match(&self, batch: &BatchHeader) -> bool {
        self.0.may_be_true(&Facts::of(batch))
    }
}

//! What people type: positions, times, durations, sizes and escapes, each with an error that lists what may stand there.

pub(crate) mod escapes;
pub(crate) mod pairs;
pub(crate) mod position;
pub(crate) mod quantity;
pub(crate) mod time;

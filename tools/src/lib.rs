//! What the checks of this workspace have in common: histories of what clients did, and the judge of them. The `floodmark` command itself
//! is a program beside this and knows nothing of it.

pub mod history;

//! All that a door may ask of the broker: domain types in and out. Must never know wire types.
mod intake;

//! The broker: doors that only translate, operations that decide. Must never know file formats.

pub mod config;
mod kafka;
mod shared;

//! The messages, generated from the tables: a module for each API with its request and response, and for each record format.
//!
//! Strings and bytes borrow from the frame. A nullable field is an `Option`; a uuid of zeros is none. A field that a version lacks is
//! left out on encode and has its default after decode. Field docs name the versions; what a field means is Kafka's documentation.

include!(concat!(env!("OUT_DIR"), "/kafka/mod.rs"));

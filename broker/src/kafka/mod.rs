//! The Kafka door: frames in, replies out. Only translates; what a request means is decided in `ops`.

pub(crate) mod dispatch;
pub(crate) mod handlers;
mod header;
pub(crate) mod request;

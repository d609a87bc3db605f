//! One file an API: message to operation, outcome to message. No decisions here.

pub(crate) mod api_versions;

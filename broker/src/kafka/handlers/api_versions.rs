//! ApiVersions (18): what this broker serves, from the table that requests are dispatched by.
//! Version 3 is flexible and names the client's software; 4 differs in what it tells of features.

use floodmark_proto::kafka::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use floodmark_proto::kafka::{ApiKey, ErrorCode};

use crate::kafka::dispatch::{SERVED, Served};
use crate::kafka::request::{Answer, Refusal, Reply, RequestContext};

pub(crate) fn handle(ctx: &RequestContext, request: ApiVersionsRequest<'_>) -> Result<Reply, Refusal> {
    let names = [request.client_software_name, request.client_software_version];
    if ctx.version() >= 3 && !names.iter().all(|name| is_software_name(name)) {
        ctx.count_error(ErrorCode::InvalidRequest);
        let error_code = ErrorCode::InvalidRequest.code();
        return ctx.reply(&ApiVersionsResponse { error_code, ..Default::default() });
    }
    ctx.reply(&ApiVersionsResponse { api_keys: SERVED.iter().map(row).collect(), ..Default::default() })
}

/// The answer to a version that is not known here: in version 0, which everybody can read, with the range to choose from.
pub(crate) fn of_another_version(ctx: &RequestContext) -> Result<Answer, Refusal> {
    ctx.count_error(ErrorCode::UnsupportedVersion);
    let own = SERVED.iter().filter(|served| served.key == ApiKey::ApiVersions);
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: own.map(row).collect(),
        ..Default::default()
    };
    Ok(Answer::Ready(ctx.reply_in_version(0, &response)?))
}

fn row(served: &Served) -> ApiVersion {
    let versions = served.advertised();
    ApiVersion { api_key: served.key.code(), min_version: *versions.start(), max_version: *versions.end() }
}

/// Letters, digits, and in between also '-' and '.'; what Kafka takes.
fn is_software_name(name: &str) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric();
    let is_inner = |b: &u8| is_plain(b) || matches!(b, b'-' | b'.');
    let name = name.as_bytes();
    name.first().is_some_and(is_plain) && name.last().is_some_and(is_plain) && name.iter().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_software_are_what_kafka_takes() {
        for (name, is_one) in [
            ("a", true),
            ("apache-kafka-java", true),
            ("4.3.1", true),
            ("librdkafka", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a b", false),
            ("ä", false),
            (".", false),
        ] {
            assert_eq!(is_software_name(name), is_one, "{name:?}");
        }
    }
}

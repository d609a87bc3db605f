//! CloudEvents 1.0 as records, by the Kafka protocol binding of the specification: attributes in headers ("binary"), or the whole event as
//! JSON in the value ("structured").

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::message::{Message, names};
use crate::record::{Header, Record};

const VERSION: &str = "1.0";
const PREFIX: &str = "ce_";
const STRUCTURED: &str = "application/cloudevents+json";
/// The extension that says which events belong together; it is the record's key.
const PARTITION_KEY: &str = "partitionkey";

/// An event.
///
/// ```
/// use floodmark_client::cloud_events::CloudEvent;
///
/// let event = CloudEvent::new("1", "/shop", "order.paid").data("application/json", r#"{"order":42}"#).key("42");
/// let record = event.to_binary("orders");
/// assert_eq!(record.header_str("ce_type"), Some("order.paid"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// Unique among the events of its source.
    pub id: String,
    /// Where it happened, a URI reference.
    pub source: String,
    /// What kind of thing happened.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened, as RFC 3339 has it.
    pub time: Option<String>,
    /// What the data must look like, a URI.
    pub data_schema: Option<String>,
    /// The media type of the data.
    pub data_content_type: Option<String>,
    /// Other attributes: lower-case letters and digits, and their values.
    pub extensions: Vec<(String, String)>,
    /// What happened.
    pub data: Option<Bytes>,
}

/// Why a record is no CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCloudEvent {
    /// Neither headers nor content type say that it is one.
    #[error(
        "the record is no CloudEvent: it has no header ce_specversion and its content type is not {STRUCTURED}"
    )]
    NotOne,
    /// An attribute that each event has.
    #[error("the event has no attribute {0}")]
    Missing(&'static str),
    /// Of another version.
    #[error("the event is of CloudEvents {0}, and only {VERSION} is known")]
    Version(String),
    /// The value is no event in JSON.
    #[error("the event's JSON is wrong: {0}")]
    Json(String),
    /// A header's value is no text.
    #[error("the attribute {0} is no UTF-8")]
    Text(String),
}

impl CloudEvent {
    /// With the attributes that every event has.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        source: impl Into<String>,
        event_type: impl Into<String>,
    ) -> CloudEvent {
        CloudEvent {
            id: id.into(),
            source: source.into(),
            event_type: event_type.into(),
            subject: None,
            time: None,
            data_schema: None,
            data_content_type: None,
            extensions: Vec::new(),
            data: None,
        }
    }

    /// With its data.
    #[must_use]
    pub fn data(mut self, media_type: impl Into<String>, data: impl Into<Bytes>) -> CloudEvent {
        self.data_content_type = Some(media_type.into());
        self.data = Some(data.into());
        self
    }

    /// Events of one key keep their order.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> CloudEvent {
        self.extensions.retain(|(name, _)| name != PARTITION_KEY);
        self.extensions.push((PARTITION_KEY.to_owned(), key.into()));
        self
    }

    /// A record with the attributes in headers and the data as its value.
    #[must_use]
    pub fn to_binary(&self, topic: impl Into<Arc<str>>) -> Message {
        let mut message = self.addressed(topic).header("ce_specversion", VERSION);
        for (name, value) in self.attributes() {
            message = message.header(format!("{PREFIX}{name}"), value.to_owned());
        }
        if let Some(media_type) = &self.data_content_type {
            message = message.content_type(media_type.clone());
        }
        Message { value: self.data.clone(), ..message }
    }

    /// A record with the whole event as JSON. Data of a JSON type stands in it as JSON, any other in base64.
    #[must_use]
    pub fn to_structured(&self, topic: impl Into<Arc<str>>) -> Message {
        let mut object = Map::new();
        object.insert("specversion".to_owned(), VERSION.into());
        for (name, value) in self.attributes() {
            object.insert(name.to_owned(), value.into());
        }
        if let Some(media_type) = &self.data_content_type {
            object.insert("datacontenttype".to_owned(), media_type.clone().into());
        }
        if let Some(data) = &self.data {
            let json =
                is_json(self.data_content_type.as_deref()).then(|| serde_json::from_slice::<Value>(data));
            match json {
                Some(Ok(json)) => object.insert("data".to_owned(), json),
                _ => object.insert("data_base64".to_owned(), base64::encode(data).into()),
            };
        }
        self.addressed(topic).content_type(STRUCTURED).value(Value::Object(object).to_string())
    }

    fn addressed(&self, topic: impl Into<Arc<str>>) -> Message {
        let key = self.extensions.iter().find(|(name, _)| name == PARTITION_KEY);
        let message = Message::to(topic);
        match key {
            Some((_, key)) => message.key(key.clone()),
            None => message,
        }
    }

    /// All that are there, but for the version and the data's type.
    fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = [
            ("id", Some(&self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.event_type)),
            ("subject", self.subject.as_ref()),
            ("time", self.time.as_ref()),
            ("dataschema", self.data_schema.as_ref()),
        ];
        let known = known.into_iter().filter_map(|(name, value)| Some((name, value?.as_str())));
        known.chain(self.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The event that a record holds, in either mode.
    pub fn from_record(record: &Record) -> Result<CloudEvent, NoCloudEvent> {
        let media_type = record.header_str(names::CONTENT_TYPE);
        if media_type.is_some_and(|media_type| essence(media_type) == STRUCTURED) {
            return from_json(record.value.as_deref().unwrap_or_default());
        }
        let mut attributes = Vec::new();
        for Header { name, value, .. } in &record.headers {
            if let Some(name) = name.strip_prefix(PREFIX) {
                let value = value.as_deref().unwrap_or_default();
                let text = std::str::from_utf8(value).map_err(|_| NoCloudEvent::Text(name.to_owned()))?;
                attributes.push((name.to_owned(), text.to_owned()));
            }
        }
        if attributes.is_empty() {
            return Err(NoCloudEvent::NotOne);
        }
        let event = from_attributes(attributes)?;
        Ok(CloudEvent {
            data_content_type: media_type.map(str::to_owned),
            data: record.value.clone(),
            ..event
        })
    }
}

impl fmt::Display for CloudEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.event_type, self.id, self.source)
    }
}

fn from_json(value: &[u8]) -> Result<CloudEvent, NoCloudEvent> {
    let wrong = |reason: &dyn fmt::Display| NoCloudEvent::Json(reason.to_string());
    let mut object: Map<String, Value> = serde_json::from_slice(value).map_err(|e| wrong(&e))?;
    let data = match (object.remove("data"), object.remove("data_base64")) {
        (Some(_), Some(_)) => return Err(wrong(&"it has both data and data_base64")),
        (Some(Value::String(text)), None)
            if !is_json(object.get("datacontenttype").and_then(Value::as_str)) =>
        {
            Some(Bytes::from(text))
        }
        (Some(json), None) => Some(Bytes::from(json.to_string())),
        (None, Some(text)) => {
            let text = text.as_str().ok_or_else(|| wrong(&"data_base64 is no string"))?;
            Some(Bytes::from(base64::decode(text).ok_or_else(|| wrong(&"data_base64 is no base64"))?))
        }
        (None, None) => None,
    };
    let data_content_type = match object.remove("datacontenttype") {
        Some(Value::String(media_type)) => Some(media_type),
        _ => None,
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        // Extensions may be numbers and truth values.
        other => other.to_string(),
    };
    let attributes =
        object.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| (name, text(value)));
    Ok(CloudEvent { data, data_content_type, ..from_attributes(attributes.collect())? })
}

fn from_attributes(mut attributes: Vec<(String, String)>) -> Result<CloudEvent, NoCloudEvent> {
    let mut take = |name: &str| {
        let at = attributes.iter().position(|(own, _)| own == name)?;
        Some(attributes.remove(at).1)
    };
    let version = take("specversion").ok_or(NoCloudEvent::Missing("specversion"))?;
    if version != VERSION {
        return Err(NoCloudEvent::Version(version));
    }
    let mut needed = |name| take(name).ok_or(NoCloudEvent::Missing(name));
    let event = CloudEvent::new(needed("id")?, needed("source")?, needed("type")?);
    let (subject, time, data_schema) = (take("subject"), take("time"), take("dataschema"));
    Ok(CloudEvent { subject, time, data_schema, extensions: attributes, ..event })
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Data without a type counts as JSON in the JSON format.
fn is_json(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|media_type| {
        let essence = essence(media_type);
        essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
    })
}

mod base64;

#[cfg(test)]
mod tests;

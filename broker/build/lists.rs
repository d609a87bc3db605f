//! Writes the table of the lists in requests: for each message that a method takes, which fields may stand there many times. From it
//! `src/grpc/codec.rs` counts them before anything is made of them.

use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// Requests that are read without a message for each of their records. They are of types of the broker's own.
const OWN: [&str; 2] = ["ProduceRequest", "AppendIfRequest"];

/// An implementation of `Listed` for what each method takes.
pub(crate) fn table(pool: &DescriptorPool) -> String {
    let mut requests: Vec<MessageDescriptor> = pool
        .services()
        .flat_map(|service| service.methods().map(|m| m.input()).collect::<Vec<_>>())
        .collect();
    requests.sort_by(|a, b| a.name().cmp(b.name()));
    requests.dedup();
    requests.retain(|request| !OWN.contains(&request.name()));
    let of = |request: &MessageDescriptor| {
        let (name, lists) = (request.name(), fields(request, ""));
        format!("impl Listed for pb::{name} {{ const FIELDS: &'static [Field] = &[{lists}]; }}\n")
    };
    requests.iter().map(of).collect()
}

/// The fields of a message that are lists or have some inside. No request has a message inside itself.
fn fields(message: &MessageDescriptor, outer: &str) -> String {
    let of = |field: protox::prost_reflect::FieldDescriptor| {
        let name = format!("{outer}{}", field.name());
        let inside = match field.kind() {
            Kind::Message(message) => fields(&message, &format!("{name}.")),
            _ => String::new(),
        };
        // A map is a list of entries where it is sent.
        let list = match (field.is_list() || field.is_map(), field.kind()) {
            (false, _) => "No",
            (true, Kind::Message(_) | Kind::String | Kind::Bytes) => "Apart",
            (true, _) => "Packed",
        };
        let is_told = list != "No" || !inside.is_empty();
        let number = field.number();
        is_told.then(|| {
            format!("Field {{ number: {number}, name: {name:?}, list: List::{list}, inside: &[{inside}] }},")
        })
    };
    message.fields().filter_map(of).collect()
}

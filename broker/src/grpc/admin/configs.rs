//! Settings of topics and brokers.

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::v1 as pb;
use pb::config_resource::Resource as Named;

use crate::grpc::call::Call;
use crate::grpc::forward;
use crate::grpc::refused::Refused;
use crate::ops::configs::{self, Change, Entry, EntrySource, Resource};

pub(super) async fn describe(
    call: &Call,
    request: pb::DescribeConfigsRequest,
) -> Result<pb::DescribeConfigsReply, Refused> {
    // What a broker's own file says, that broker knows.
    if let Resource::Broker(id) = resource(request.resource.as_ref())?
        && call.shared.cluster.image().is_live(id)
        && let Some(broker) = forward::other(call, id)
    {
        return forward::unary(call, broker, call.api, request).await;
    }
    let names: Vec<&str> = request.names.iter().map(|name| &**name).collect();
    let wanted = (!names.is_empty()).then_some(&*names);
    let entries = configs::describe(&call.shared, resource(request.resource.as_ref())?, wanted)?;
    Ok(pb::DescribeConfigsReply { entries: entries.into_iter().map(entry).collect() })
}

pub(super) async fn alter(
    call: &Call,
    request: pb::AlterConfigsRequest,
) -> Result<pb::AlterConfigsReply, Refused> {
    let changes = request.changes.iter().map(change).collect::<Result<Vec<_>, _>>()?;
    let resource = resource(request.resource.as_ref())?;
    configs::change(&call.shared, resource, &changes, request.validate_only, call.within(0)).await?;
    Ok(pb::AlterConfigsReply {})
}

fn resource(resource: Option<&pb::ConfigResource>) -> Result<Resource<'_>, Refused> {
    match resource.and_then(|resource| resource.resource.as_ref()) {
        Some(Named::Topic(name)) => Ok(Resource::Topic(name)),
        Some(Named::BrokerId(id)) => Ok(Resource::Broker(BrokerId(*id))),
        None => Err(Refused::invalid("settings belong to a topic or a broker; say which")),
    }
}

fn change(change: &pb::ConfigChange) -> Result<(&str, Change<'_>), Refused> {
    use pb::config_change::Change as C;
    let wanted = match &change.change {
        Some(C::Set(value)) => Change::Set(value),
        Some(C::Remove(true)) => Change::Unset,
        Some(C::Append(value)) => Change::Append(value),
        Some(C::Subtract(value)) => Change::Subtract(value),
        Some(C::Remove(false)) | None => {
            return Err(Refused::invalid(format!("nothing is to become of setting '{}'", change.name)));
        }
    };
    Ok((&change.name, wanted))
}

fn entry(entry: Entry) -> pb::ConfigEntry {
    let source = match entry.source {
        EntrySource::Topic => "topic",
        EntrySource::DynamicBroker => "broker",
        EntrySource::DynamicCluster => "cluster",
        EntrySource::StaticBroker => "broker file",
        EntrySource::Default => "default",
    };
    pb::ConfigEntry {
        name: entry.name.to_owned(),
        value: entry.value,
        source: source.to_owned(),
        is_read_only: entry.is_read_only,
        documentation: entry.documentation.to_owned(),
    }
}

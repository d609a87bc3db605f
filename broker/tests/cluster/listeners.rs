//! What each listener says of the cluster, and what it does not serve.

use std::collections::BTreeMap;

use floodmark_proto::kafka::messages::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use floodmark_proto::pb::v1 as pb;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

use crate::generated::admin_client::AdminClient;
use crate::generated::groups_client::GroupsClient;
use crate::setup::{Three, run};

#[test]
fn each_door_tells_the_addresses_of_its_own_listeners() {
    let three = Three::start();
    let kafka: BTreeMap<i32, (String, i32)> = (1..=3)
        .map(|id| (id, ("127.0.0.1".to_owned(), i32::from(three.broker(id).kafka_address().port()))))
        .collect();
    let grpc: BTreeMap<i32, u32> =
        (1..=3).map(|id| (id, u32::from(three.broker(id).grpc_address().unwrap().port()))).collect();
    let mut coordinators = Vec::new();
    for id in 1..=3 {
        let metadata = three.metadata(id, &[]);
        assert_eq!(metadata.brokers, kafka, "Metadata of broker {id}");
        three.until("a controller", || kafka.get(&three.metadata(id, &[]).controller));
        let request = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
        let answer = three.kafka(id).ask(2, &request).unwrap();
        let cluster = answer.read::<DescribeClusterResponse<'_>>();
        let told: BTreeMap<i32, (String, i32)> =
            cluster.brokers.iter().map(|b| (b.broker_id, (b.host.to_owned(), b.port))).collect();
        assert_eq!(told, kafka, "DescribeCluster of broker {id}");
        let (coordinator, port) = three.coordinator(id, "g");
        assert_eq!(kafka[&coordinator].1, port);
        coordinators.push(coordinator);
        run(async {
            let channel = three.grpc(id).await;
            let asked = pb::DescribeClusterRequest {};
            let cluster =
                AdminClient::new(channel.clone()).describe_cluster(asked).await.unwrap().into_inner();
            assert_eq!(cluster.broker_id, id);
            let told: BTreeMap<i32, u32> = cluster.brokers.iter().map(|b| (b.broker_id, b.port)).collect();
            assert_eq!(told, grpc, "DescribeCluster over gRPC of broker {id}");
            let asked = pb::FindCoordinatorRequest { group: "g".to_owned() };
            let found = GroupsClient::new(channel).find_coordinator(asked).await.unwrap().into_inner();
            assert_eq!((found.broker_id, found.port), (coordinator, grpc[&coordinator]));
        });
    }
    assert_eq!(coordinators, [coordinators[0]; 3], "all brokers send a group to the same one");
}

/// A broker's services move replicas and votes; a client's listener knows nothing of them, and the brokers' own takes nobody's word.
#[test]
fn what_brokers_ask_of_each_other_is_served_to_no_client() {
    let three = Three::start();
    run(async {
        let code = async |address: String, path: &'static str| {
            let channel =
                Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let path = PathAndQuery::from_static(path);
            client.unary(tonic::Request::new(()), path, codec).await.unwrap_err().code()
        };
        let grpc = three.broker(1).grpc_address().unwrap().to_string();
        for path in [
            "/floodmark.quorum.Quorum/AppendEntries",
            "/floodmark.quorum.Quorum/Propose",
            "/floodmark.quorum.Forming/Join",
            "/floodmark.replica.Replica/Fetch",
            "/floodmark.controller.Controller/Heartbeat",
        ] {
            assert_eq!(code(grpc.clone(), path).await, Code::Unimplemented, "{path} on a client's listener");
        }
        // A call that does not say which brokers it is between, or says nothing true.
        for path in ["/floodmark.replica.Replica/Fetch", "/floodmark.v1.Admin/DeleteRecords"] {
            let refused = code(three.peer_address(1), path).await;
            assert_eq!(refused, Code::InvalidArgument, "{path} on the brokers' listener");
        }
    });
}

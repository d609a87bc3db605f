//! A broker inside another program: started in one line, asked by a Kafka client, stopped without leaving anything behind.
#![allow(clippy::print_stdout, reason = "a program for people to run")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message as _, RequestHeader};

const VERSION: i16 = 12;

/// Run with `cargo run -p floodmark-broker --example embedded`.
pub fn main() -> Result<(), Box<dyn Error>> {
    // A free port on loopback, and a directory that goes away with the broker. Settings are those of `floodmark config show`.
    let mut config = BrokerConfig::temporary()?;
    config.set("num.partitions", "3")?;
    let directory = config.data_dirs[0].clone();
    let broker = Broker::start(config)?;
    println!("Kafka clients connect to {}", broker.kafka_address());

    // Any Kafka client can do this; here it is the protocol itself: who asks for a topic gets it made.
    let mut socket = TcpStream::connect(broker.kafka_address())?;
    let mut encoder = Encoder::new();
    let api_key = ApiKey::Metadata.code();
    let client_id = Some("embedded");
    RequestHeader { api_key, api_version: VERSION, correlation_id: 1, client_id }.start_request(&mut encoder);
    let topic = MetadataRequestTopic { name: Some("readings"), ..Default::default() };
    let request =
        MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: true, ..Default::default() };
    request.encode(&mut encoder, VERSION);
    socket.write_all(&encoder.finish()?.concat())?;

    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    socket.read_exact(&mut frame)?;
    let mut decoder = Decoder::new(&frame);
    decode_response_header(&mut decoder, ApiKey::Metadata, VERSION)?;
    let response = MetadataResponse::decode(&mut decoder, VERSION)?;
    for topic in &response.topics {
        println!("topic {:?} has {} partitions", topic.name.unwrap_or_default(), topic.partitions.len());
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
    }

    broker.stop();
    assert!(!directory.exists(), "nothing is left of it");
    println!("stopped");
    Ok(())
}

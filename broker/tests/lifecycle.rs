//! Starting and stopping: in any program, more than one at a time, and nothing left behind.
#![allow(clippy::disallowed_methods, reason = "the test looks at files from outside")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig, StartError};
use wire::{Client, PATIENCE, broker};

fn temporary() -> BrokerConfig {
    BrokerConfig::temporary().unwrap()
}

fn temporary_with(key: &str, value: &str) -> BrokerConfig {
    let mut config = temporary();
    config.set(key, value).unwrap();
    config
}

/// Those who would be missed: this program's own threads are of other names.
fn threads_of_brokers() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with("fm-")).collect()
}

fn get(broker: &Broker, path: &str) -> String {
    let mut socket = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// One test, since it looks at all threads and files of the process.
#[test]
fn nothing_is_left_of_a_broker() {
    let mut dirs = Vec::new();
    for n in 0..6 {
        let config = temporary();
        dirs.push(config.data_dirs[0].clone());
        let broker = Broker::start(config).unwrap();
        let mut client = Client::connect(broker.kafka_address());
        assert!(client.is_served(1));
        let address = broker.kafka_address();
        if n % 2 == 0 {
            broker.stop()
        } else {
            drop(broker)
        }
        assert!(client.is_closed(PATIENCE));
        assert!(TcpStream::connect(address).is_err());
    }
    // A broker that does not start leaves nothing either.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = temporary_with("kafka.listen", &taken.local_addr().unwrap().to_string());
    dirs.push(config.data_dirs[0].clone());
    Broker::start(config).unwrap_err();

    // A thread that was waited for may stand in the system's table a moment longer.
    let are_gone = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        threads_of_brokers().is_empty()
    });
    assert!(are_gone, "{:?}", threads_of_brokers());
    for dir in dirs {
        assert!(!dir.exists(), "{}", dir.display());
    }

    // From here on other brokers run.
    several_run_in_one_process();
    a_running_broker_stops_from_within_async_code();
    what_is_wrong_is_named();
    health_is_told();
}

fn several_run_in_one_process() {
    let brokers: Vec<Broker> = (0..3).map(|_| broker(&[("http.listen", "127.0.0.1:0")])).collect();
    for (n, broker) in brokers.iter().enumerate() {
        for id in 0..=n {
            assert!(Client::connect(broker.kafka_address()).is_served(id as i32));
        }
    }
    for (n, broker) in brokers.iter().enumerate() {
        let text = get(broker, "/metrics");
        let count = format!("floodmark_kafka_request_seconds_count{{api=\"ApiVersions\"}} {}\n", n + 1);
        assert!(text.contains(&count), "{count}{text}");
    }
}

fn a_running_broker_stops_from_within_async_code() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = Broker::start(temporary()).unwrap();
        let socket = tokio::net::TcpStream::connect(broker.kafka_address()).await.unwrap();
        broker.stop();
        drop(Broker::start(temporary()).unwrap());
        tokio::time::timeout(PATIENCE, socket.readable()).await.unwrap().unwrap();
        // One that was not taken yet is reset.
        assert!(matches!(socket.try_read(&mut [0]), Ok(0) | Err(_)));
    });
}

fn what_is_wrong_is_named() {
    let first = broker(&[]);
    let address = first.kafka_address().to_string();
    let told = |config: BrokerConfig| Broker::start(config).unwrap_err().to_string();

    let in_use = told(temporary_with("kafka.listen", &address));
    assert_eq!(
        in_use,
        format!("kafka.listen = {address} is in use by another process; stop that, or choose another port")
    );
    let in_use = told(temporary_with("http.listen", &address));
    assert!(in_use.starts_with("http.listen = 127.0.0.1:"), "{in_use}");
    let not_ours = told(temporary_with("kafka.listen", "192.0.2.1:9092"));
    assert!(not_ours.starts_with("kafka.listen = 192.0.2.1:9092 cannot be listened on: "), "{not_ours}");

    let mut everywhere = temporary_with("kafka.listen", "0.0.0.0:0");
    let refused = Broker::start(everywhere.clone());
    assert!(matches!(refused, Err(StartError::NothingToAdvertise { .. })), "{refused:?}");
    everywhere.set("kafka.advertised", "kafka.example:9092").unwrap();
    Broker::start(everywhere).unwrap().stop();

    let config = temporary();
    let running = Broker::start(config.clone()).unwrap();
    let locked = told(config.clone());
    assert!(locked.contains("another process uses this data directory"), "{locked}");
    assert!(locked.contains(&config.data_dirs[0].display().to_string()), "{locked}");
    running.stop();
    Broker::start(config).unwrap().stop();

    // What a directory was made by stays with it.
    let mut config = temporary();
    Broker::start(config.clone()).unwrap().stop();
    config.set("node.id", "7").unwrap();
    let other = told(config);
    assert!(other.contains("is 1, not 7: this directory belongs to another broker"), "{other}");

    let foreign = temporary();
    std::fs::write(foreign.data_dirs[0].join("somebody.elses"), "x").unwrap();
    let told = told(foreign);
    assert!(told.contains("is not empty and was not written by Floodmark"), "{told}");
}

fn health_is_told() {
    let broker = broker(&[("http.listen", "127.0.0.1:0")]);
    assert!(get(&broker, "/healthz").starts_with("HTTP/1.1 200 OK"));
    assert!(get(&broker, "/readyz").ends_with("ready\n"));
    assert!(get(&broker, "/metrics").contains("content-type: application/openmetrics-text"));
    assert!(get(&broker, "/").starts_with("HTTP/1.1 404"));
    // One that sends nothing keeps nobody from stopping.
    let _silent = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    let _waiting = Client::connect(broker.kafka_address());
    broker.stop();
}

//! What hostile clients announce is not what the broker takes. Alone in its program, since it looks at the process's memory.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod wire;

use std::time::Duration;

use wire::{Client, broker};

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn memory_follows_what_arrives_and_not_what_is_announced() {
    let broker = broker(&[("queued.max.request.bytes", "8MiB"), ("request.timeout.ms", "60000")]);
    let mut other = Client::connect(broker.kafka_address());
    assert!(other.is_served(1));
    let before = resident_bytes();
    // 200 times 100 MiB announced; of each a little arrives, and of some more than the budget of all holds together.
    let announced = (100_i32 << 20).to_be_bytes();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(broker.kafka_address())).collect();
    for client in &mut clients {
        client.send(&announced);
        client.send(&[0; 1000]);
    }
    for client in &mut clients[..20] {
        client.socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        client.send(&vec![0; 2 << 20]);
    }
    for n in 0..20 {
        assert!(other.is_served(n));
    }
    // The budget, one that goes over it with the 2 MiB it sent, a read of each, and slack for the allocator.
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < 32 << 20, "{taken} bytes");
    let mut late = Client::connect(broker.kafka_address());
    assert!(late.is_served(2));
}

//! Ports for brokers of tests that must be known before the broker is started, or stay the same when it starts again.
#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests, which may panic; no test uses all")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Free ports that no other test is given, from below those that the system gives to connections that go out: one of these might take a
/// port before its broker does.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    std::array::from_fn(|_| {
        loop {
            let place =
                std::process::id().wrapping_mul(211) + u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
            let port = 10_000 + (place % 22_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

//! Loopback ports for processes that must be told their port before they start.
//!
//! They lie below the range from which the system takes the ports of outgoing connections, so that a
//! server which is down for a while finds its port free when it comes back.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const LOWEST: u16 = 11_000;
const COUNT: u16 = 20_000;

/// A port that nobody listens on, and that no other call in this process returns (within 20,000 calls).
/// Another process may still take it first: who starts a server on it tries again.
///
/// # Panics
/// When none of 20,000 ports is free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run side by side begin at different places.
    let begin = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = LOWEST + (begin + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {LOWEST} and {}", LOWEST + COUNT);
}

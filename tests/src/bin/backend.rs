//! A greeter of `svc_tests::backends` in a process of its own, to be killed and stopped by signals.
//! `backend NAME [DELAY_MS]` prints its address and serves until its stdin ends.

use std::io::Read;
use std::time::Duration;

use svc_tests::backends::Backend;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "backend".to_owned());
    let delay = arguments.next().and_then(|delay| delay.parse().ok()).unwrap_or(0);
    let backend = Backend::start(&name).await;
    backend.set_delay(Duration::from_millis(delay));
    announce(&backend.address());
    // Ends with whoever started us, in whatever way that one ended.
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}

#[expect(clippy::print_stdout, reason = "the parent reads the address there")]
fn announce(address: &str) {
    println!("{address}");
}

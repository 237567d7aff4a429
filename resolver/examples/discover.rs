//! The tower `Discover` itself, for a balancer of one's own: prints who comes and goes.

use futures_util::StreamExt;
use svc_resolver::{MakeEndpoint, Resolved, Resolver};
use tower::BoxError;
use tower::discover::Change;

/// Makes what the balancer is to balance over; here a line of text.
struct Lines;

impl MakeEndpoint for Lines {
    type Service = String;

    fn make(&mut self, instance: &Resolved) -> Result<String, BoxError> {
        Ok(format!("{} weight {}", instance.address, instance.weight))
    }
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "greeter".to_owned());
    let mut discover = Resolver::from_env()?.discover(&target, Lines)?;
    while let Some(Ok(change)) = discover.next().await {
        match change {
            Change::Insert(key, line) => println!("+ {key}: {line}"),
            Change::Remove(key) => println!("- {key}"),
        }
    }
    Ok(())
}

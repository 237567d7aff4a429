//! A client in three lines: `ETCDCTL_ENDPOINTS=127.0.0.1:2379 cargo run -p svc-resolver --example client`

use svc_proto::greeter::v1::{HelloRequest, greeter_client::GreeterClient};
use svc_resolver::Resolver;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let resolver = Resolver::from_env()?;
    let mut greeter = GreeterClient::new(resolver.channel("greeter")?);
    let reply = greeter.say_hello(HelloRequest { name: "ada".into() }).await?;
    // An example prints; the lint is for libraries.
    #[allow(clippy::print_stdout, reason = "an example prints")]
    {
        println!("{:?}", reply.into_inner());
    }
    Ok(())
}

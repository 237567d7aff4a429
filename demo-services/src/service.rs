//! A service as its command line describes it: logs and metrics begun, etcd and callees at hand, a server to which the
//! program adds what it serves.

use svc_registry::serve::Stages;
use svc_registry::{Etcd, Serve};
use svc_resolver::{Channel, Resolver};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower_layer::{Identity, Stack};

use crate::config::ServiceArgs;
use crate::error::BoxError;
use crate::signal;
use crate::telemetry::Observe;

/// A server whose calls are observed.
pub type Served = Serve<Stack<Observe, Identity>>;

/// What all services have; made by [`ServiceArgs::start`].
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    args: ServiceArgs,
    etcd: Etcd,
    resolver: Resolver,
    stopping: CancellationToken,
}

impl ServiceArgs {
    /// Begins the service of this name, which calls these others: logs are written from here on, and metrics are
    /// served if that was asked for.
    ///
    /// # Errors
    /// A wrong configuration, by its flag or field; the metrics' address cannot be listened on.
    pub async fn start(self, name: &'static str, callees: &[&str]) -> Result<Service, BoxError> {
        self.telemetry.start(name).await?;
        self.grpc_clients.only(name, callees)?;
        let etcd = self.etcd()?;
        let resolver = Resolver::new(&etcd);
        let stopping = CancellationToken::new();
        // Owned by nobody: ends once it has told, or with the process; it holds the token only.
        tokio::spawn({
            let stopping = stopping.clone();
            async move {
                signal::stopped().await;
                tokio::time::sleep(Stages::default().notice).await;
                stopping.cancel();
            }
        });
        Ok(Service { name, args: self, etcd, resolver, stopping })
    }
}

impl Service {
    /// A balanced channel to a callee, as `[[grpc_clients]]` says of it. One for the whole process: clone it.
    ///
    /// # Errors
    /// A target that cannot be understood.
    pub fn channel(&self, callee: &str) -> Result<Channel, BoxError> {
        let builder = match &self.args.zone {
            Some(zone) => Channel::builder().zone(zone.clone()),
            None => Channel::builder(),
        };
        let builder = if self.args.telemetry.has_metrics() { builder.metrics() } else { builder };
        let make = |target: &str, builder| self.resolver.channel_with(target, builder);
        self.args.grpc_clients.channel(callee, builder, make)
    }

    /// The server: it registers, and its calls are limited, traced and measured. Health is part of it.
    pub fn serve(&self) -> Served {
        self.serve_with(Server::builder())
    }

    /// The same for pages: these routes, by HTTP/1.1 too, beside health by gRPC.
    pub fn serve_http(&self, routes: axum::Router) -> Served {
        self.serve_with(Server::builder().accept_http1(true)).routes(Routes::from(routes))
    }

    fn serve_with(&self, server: Server) -> Served {
        let server = server.max_concurrent_streams(self.args.max_concurrent_streams);
        self.args.serve(&self.etcd, self.name).server(server.layer(Observe::new()))
    }

    /// Cancelled when the process is asked to stop, and clients have had the time to take note: streams that have no
    /// end of their own end then, or they would hold the stop up.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// The largest message that is taken: for `max_decoding_message_size` of each gRPC service.
    pub fn max_message_size(&self) -> usize {
        // From 32 bits: it fits.
        usize::try_from(self.args.max_message_size).unwrap_or(usize::MAX)
    }

    /// What answers clients that ask for the protocols of these services (`greeter_server::SERVICE_NAME`).
    ///
    /// # Errors
    /// A descriptor that cannot be read: a broken build.
    pub fn reflection(
        &self,
        services: &[&str],
    ) -> Result<ServerReflectionServer<impl ServerReflection>, BoxError> {
        let health = tonic_health::pb::health_server::SERVICE_NAME;
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(svc_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(health);
        let builder = services.iter().fold(builder, |builder, name| builder.with_service_name(*name));
        Ok(builder.build_v1()?)
    }

    /// The resolver, for those who want to know more than a channel tells.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The connection to etcd.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }
}

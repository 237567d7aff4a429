//! grpc.health.v1 of a served process: "" for the whole, and each name that it is registered or called under.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::HealthReporter;

/// Sets what health checks answer.
#[derive(Clone, Debug)]
pub(super) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// The reporter and the service to add to the routes. Every name starts as NOT_SERVING.
    pub(super) async fn new(names: &[String]) -> (Health, HealthServer<impl HealthService>) {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Health { reporter };
        health.set(names, false).await;
        (health, service)
    }

    pub(super) async fn set(&self, names: &[String], serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

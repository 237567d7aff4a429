//! From the set to the [`Snapshot`] that calls read. What is shown of an endpoint is made anew only when it changes; a
//! publication collects references. It is still a walk over all endpoints, since a policy is shown them as one
//! slice; `shown.rs` paces it.

use std::hash::Hash;

use tokio::time::Instant;
use tower::discover::Discover;

use super::core::Entry;
use super::snapshot::{Snapshot, Verdict};
use super::task::Owner;
use crate::front::ConnectivityState;
use crate::load;
use crate::owner::core::verdict::describe;
use crate::subchannel::Subchannel;
use crate::subchannel::face::{Face, Open};
use crate::subchannel::id::EndpointId;

impl<D: Discover> Owner<D>
where
    D::Key: Hash + Eq + Clone,
{
    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        for id in self.set.take_touched() {
            match self.set.entry(id) {
                Some(entry) => drop(self.shown.endpoints.insert(id, self.face(id, entry, now))),
                None => drop(self.shown.endpoints.remove(&id)),
            }
        }
        debug_assert_eq!(
            self.set.entries().count(),
            self.shown.endpoints.len(),
            "who comes or goes is touched"
        );
        let faces = || self.shown.endpoints.values().map(Subchannel::face);
        let census = self.set.outlier_detection().census(faces().map(|face| face.standing));
        let (mut ready, mut warming) = (Vec::new(), Vec::new());
        for subchannel in self.shown.endpoints.values() {
            let face = subchannel.face();
            if face.open.is_some() && census.takes_calls(face.standing) {
                ready.push(subchannel.clone());
                warming.push(face.warming.filter(|warming| !warming.is_over(now)));
            }
        }
        if let Some(weights) = &self.weights {
            let now_ms = load::now_ms();
            weights.updated(ready.iter().map(|s| s.load().reported.standing(now_ms)));
        }
        let resolution = &self.discovery.seen;
        let verdict = if ready.is_empty() {
            self.set.verdict(&self.front.name, resolution, self.waited, now)
        } else {
            Verdict::Fail("the policy picks none of the endpoints that are ready".into())
        };
        let state = match (&verdict, ready.is_empty()) {
            (_, false) => ConnectivityState::Ready,
            (Verdict::Idle(_), true) => ConnectivityState::Idle,
            (Verdict::Wait(_), true) => ConnectivityState::Connecting,
            (Verdict::Fail(_) | Verdict::Over(_), true) => ConnectivityState::TransientFailure,
        };
        let snapshot = Snapshot {
            picker: self.arrangement.update(&ready, &warming, faces().map(|face| &*face.endpoint)),
            ready: ready.into(),
            verdict,
            methods: self.config.methods().cloned(),
            endpoints: self.shown.endpoints.values().cloned().collect(),
            policy: self.arrangement.policy().name(),
            resolution: describe(resolution, now),
        };
        self.front.publish(snapshot, state);
        self.shown.was_published(now);
    }

    fn face(&self, id: EndpointId, entry: &Entry, now: Instant) -> Subchannel {
        let mut connections = entry.connections().filter_map(|c| self.links.get(&c)?.connection.clone());
        let open = connections.next();
        Subchannel::of(Face {
            endpoint: entry.endpoint.clone(),
            load: self.loads.of(id),
            open: open.map(|link| Open { link, siblings: connections.collect(), spread: self.spread }),
            standing: entry.standing(),
            state: entry.life.state(),
            since: entry.since,
            reached: entry.life.link().and_then(|link| self.links.get(&link)?.reached()),
            last_error: entry.life.last_error().cloned(),
            ejections: entry.life.ejections(),
            warming: self.set.warming(entry, now),
        })
    }
}

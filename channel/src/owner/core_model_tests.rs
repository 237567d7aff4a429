//! The set of endpoints against a model of discovery and of connections, a million random steps: whatever is reported in
//! whatever order, calls go only to what is connected and known, turns to dial are kept, nobody is forgotten, and
//! nothing is left behind. `MODEL_SEED` repeats a run, `MODEL_STEPS` sets its length. The channel as a whole, with HTTP/2
//! underneath, is modelled in `channel/tests/model`.

use super::*;

const STEPS: u64 = 1_000_000;
const STEPS_OF_A_LIFE: u64 = 5_000;
const ENDPOINTS: u64 = 12;

/// A connection as its own task knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Dialling,
    Up,
    /// It said GOAWAY, or the owner closed it.
    Draining,
}

struct Model {
    rng: fastrand::Rng,
    now: Instant,
    set: EndpointSet,
    /// What discovery has.
    known: BTreeSet<EndpointId>,
    wires: BTreeMap<ConnectionId, (EndpointId, Wire)>,
    dialled: Option<ConnectionId>,
    next_port: u16,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let connections = Connections { set: rng.usize(1..3), most: rng.usize(3..5) };
        let (outliers, own) = (OutlierDetection::default(), fastrand::Rng::with_seed(seed));
        let connects_all = rng.u32(..4) > 0;
        let max_dials = rng.usize(1..5);
        let mut set =
            EndpointSet::new(Duration::from_secs(120), outliers, connections, connects_all, max_dials, own);
        let now = Instant::now();
        set.set_checks(rng.u32(..3) == 0, now);
        let (known, wires) = (BTreeSet::new(), BTreeMap::new());
        Self { rng, now, set, known, wires, dialled: None, next_port: 1 }
    }

    fn any_known(&mut self) -> Option<EndpointId> {
        let count = self.known.len();
        let at = self.rng.usize(..count.max(1));
        self.known.iter().nth(at).copied()
    }

    fn any_wire(&mut self) -> Option<(ConnectionId, Wire)> {
        let count = self.wires.len();
        let at = self.rng.usize(..count.max(1));
        self.wires.iter().nth(at).map(|(id, (_, wire))| (*id, *wire))
    }

    fn step(&mut self) {
        match self.rng.u32(..20) {
            0..2 => self.discovered(),
            2 => {
                if let Some(id) = self.any_known() {
                    self.known.remove(&id);
                    self.set.remove(id, self.now);
                }
            }
            3..7 => self.pass(),
            7 => {
                let known: Vec<_> = self.known.iter().copied().collect();
                let tally = |endpoint| Tally { endpoint, answered: 50, failed: 50, ejected: false };
                let tallies: Vec<_> = known.into_iter().map(tally).collect();
                self.set.sweep(&tallies, self.now);
            }
            _ => self.happened(),
        }
        self.act();
    }

    fn discovered(&mut self) {
        let id = EndpointId(self.rng.u64(..ENDPOINTS));
        self.next_port = self.next_port.checked_add(1).unwrap_or(1);
        let port = if self.rng.u32(..3) == 0 { self.next_port } else { 1 };
        let held = (self.rng.u32(..6) == 0).then(|| self.now + Duration::from_secs(10));
        let endpoint = Endpoint::new(format!("h:{port}")).expect("an address");
        let endpoint = endpoint.weight(self.rng.u32(1..3)).held_until(held);
        // One that is held and was never there is not to be connected.
        if held.is_none() {
            self.known.insert(id);
        }
        self.set.insert(id, endpoint, self.now);
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(..5_000));
        if self.set.next_alarm().is_some_and(|at| at <= self.now) {
            self.set.alarm(self.now);
        }
    }

    /// Something that connections report, each what it can by now.
    fn happened(&mut self) {
        let Some((id, wire)) = self.any_wire() else { return };
        let served = self.rng.bool();
        let lost = || Report::Lost { reason: "lost".into(), served };
        let cause = *self.rng.choice(&[Cause::BlackHole, Cause::Failing]).expect("two");
        let trouble = self.rng.bool().then(|| "not serving".into());
        let (report, after) = match (wire, self.rng.u32(..10)) {
            (Wire::Dialling, 0..3) => (Report::DialFailed("refused".into()), None),
            (Wire::Dialling, _) => (Report::Ready, Some(Wire::Up)),
            (Wire::Up, 0) => (Report::GoAway { served }, Some(Wire::Draining)),
            (Wire::Up, 1) => (lost(), None),
            (Wire::Up, 2..5) => (Report::Suspect(cause), Some(wire)),
            (Wire::Up, 5) => (Report::Saturated, Some(wire)),
            (Wire::Up, 6) => (Report::Health(trouble), Some(wire)),
            (Wire::Up, _) => (Report::Pong, Some(wire)),
            (Wire::Draining, 0..5) => (lost(), None),
            // What was under way to the owner when it closed the connection.
            (Wire::Draining, 5) => (Report::Suspect(cause), Some(wire)),
            (Wire::Draining, 6) => (Report::Saturated, Some(wire)),
            (Wire::Draining, _) => (Report::Pong, Some(wire)),
        };
        match (after, self.wires.get_mut(&id)) {
            (Some(after), Some((_, wire))) => *wire = after,
            _ => drop(self.wires.remove(&id)),
        }
        self.set.report(id, report, self.now);
    }

    /// Does what the owner's task would.
    fn act(&mut self) {
        loop {
            let (actions, _) = self.set.take();
            if actions.is_empty() {
                return;
            }
            for action in &actions {
                self.do_one(action);
            }
        }
    }

    fn do_one(&mut self, action: &Action) {
        match *action {
            Action::Dial { endpoint, id, .. } => {
                assert!(self.known.contains(&endpoint), "{endpoint:?} is dialled and not known");
                assert!(self.dialled < Some(id), "connections have names of their own");
                self.dialled = Some(id);
                self.wires.insert(id, (endpoint, Wire::Dialling));
            }
            Action::Close(id) => match self.wires.get_mut(&id) {
                // A dial that nobody wants ends without a word, or is ready a moment too early.
                Some((_, Wire::Dialling)) if self.rng.bool() => drop(self.wires.remove(&id)),
                Some((_, wire @ Wire::Up)) => *wire = Wire::Draining,
                Some(_) | None => {}
            },
            Action::Kill(id) if self.rng.bool() => {
                self.wires.remove(&id);
                let lost = Report::Lost { reason: "killed".into(), served: true };
                self.set.report(id, lost, self.now);
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        // Held ones may be forgotten by the set itself.
        self.known.retain(|id| self.set.entries.contains_key(id));
        assert_eq!(self.set.entries.len(), self.known.len(), "the set has what discovery has");
        assert!(self.set.dialling.len() <= self.set.max_dials);
        let serving = self.set.entries().filter(|(_, e)| e.life.serves());
        let causes: Vec<_> = serving.map(|(_, e)| e.life.ejected_for()).collect();
        let count = |cause| causes.iter().filter(|c| **c == cause).count();
        let (healthy, failing) = (count(None), count(Some(Cause::Failing)));
        for (id, entry) in self.set.ready() {
            assert!(entry.life.serves());
            for connection in entry.connections() {
                let wire = self.wires.get(&connection);
                assert_eq!(wire, Some(&(id, Wire::Up)), "{connection:?} takes calls of {id:?}");
            }
            match entry.life.ejected_for() {
                None => {}
                Some(Cause::Failing) => assert!(healthy == 0 || healthy < failing, "panic threshold"),
                Some(_) => assert_eq!(healthy + failing, 0, "a black hole is the last resort"),
            }
        }
        assert_eq!(self.set.ready().is_empty(), causes.is_empty(), "somebody takes calls if anybody can");
        for (id, entry) in self.set.entries() {
            let life = &entry.life;
            let dial = life.dialling().is_some() || life.is_queued();
            let hope = life.link().is_some() || dial || entry.alarm.is_some();
            assert!(
                hope || !self.set.connects_all || entry.endpoint.held_until.is_some(),
                "{id:?} is forgotten: {entry:?}"
            );
            if life.is_queued() {
                assert!(self.set.queue.contains(&id), "{id:?} waits for a turn that will never come");
                assert_eq!(self.set.dialling.len(), self.set.max_dials, "a turn is free and {id:?} waits");
            }
        }
    }

    /// Discovery loses all, and all connections end: nothing is left.
    fn end(mut self) {
        while let Some(id) = self.known.pop_first() {
            self.set.remove(id, self.now);
            self.act();
        }
        for id in std::mem::take(&mut self.wires).into_keys() {
            self.set.report(id, Report::Lost { reason: "over".into(), served: true }, self.now);
        }
        let set = &self.set;
        assert_eq!((set.entries.len(), set.owners.len(), set.dialling.len(), set.alarms.len()), (0, 0, 0, 0));
        self.set.settle(self.now);
        assert!(self.set.queue.is_empty());
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_is_reported_the_set_keeps_its_laws() {
    let seed = variable("MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let steps = variable("MODEL_STEPS").unwrap_or(STEPS);
    println!("MODEL_SEED={seed} MODEL_STEPS={steps}");
    let mut ready = 0;
    for life in 0..steps.div_ceil(STEPS_OF_A_LIFE) {
        let mut model = Model::new(seed.wrapping_add(life));
        for _ in 0..STEPS_OF_A_LIFE {
            model.step();
            model.check();
            ready += model.set.ready().len();
        }
        model.end();
    }
    assert!(ready as u64 > steps / 2, "endpoints were ready: {ready}");
}

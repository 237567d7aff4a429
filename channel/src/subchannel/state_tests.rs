use std::fmt::Write;

use super::*;

const EJECTION_BASE: Duration = Duration::from_secs(5);
const SETTINGS: Settings = Settings {
    max_backoff: Duration::from_secs(120),
    base_ejection: EJECTION_BASE,
    max_ejection: Duration::from_secs(300),
    checks: false,
};

/// A life, and the clock that it has lived by.
struct Lived {
    life: Life,
    settings: Settings,
    now: Instant,
    rng: fastrand::Rng,
}

impl Lived {
    fn new() -> Self {
        let rng = fastrand::Rng::with_seed(1);
        Self { life: Life::default(), settings: SETTINGS, now: Instant::now(), rng }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = vec![];
        self.life.on(event, self.now, &self.settings, &mut self.rng, &mut effects);
        effects
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn alarm(&mut self) -> Vec<Effect> {
        self.now = self.life.alarm().expect("an alarm is set").max(self.now);
        self.on(Event::Alarm)
    }

    /// A life that is connected by `id`.
    fn ready(id: u64) -> Self {
        let mut lived = Self::new();
        lived.on(Event::Wanted);
        lived.on(Event::Turn(ConnectionId(id)));
        lived.on(Event::Connected(ConnectionId(id)));
        assert_eq!(lived.life.state(), State::Ready);
        lived
    }

    /// A life that is connected by 1, whose server was asked for its health.
    fn asked() -> Self {
        let mut lived = Self::new();
        lived.settings.checks = true;
        lived.on(Event::Wanted);
        lived.on(Event::Turn(ConnectionId(1)));
        assert_eq!(lived.on(Event::Connected(ConnectionId(1))), [Effect::Check(ConnectionId(1))]);
        lived
    }

    /// The same after its answer.
    fn answered(serves: bool) -> Self {
        let mut lived = Self::asked();
        lived.on(health(1, serves));
        lived
    }
}

fn lost(id: u64, served: bool) -> Event {
    Event::LinkEnded { id: ConnectionId(id), reason: Some("reset".into()), served }
}

fn health(id: u64, serves: bool) -> Event {
    Event::Health { id: ConnectionId(id), trouble: (!serves).then(|| "NOT_SERVING".into()) }
}

#[test]
fn table() {
    type Named = (&'static str, fn() -> Lived);
    let lives: [Named; 10] = [
        ("idle", Lived::new),
        ("dialling 1", || {
            let mut lived = Lived::new();
            lived.on(Event::Wanted);
            lived.on(Event::Turn(ConnectionId(1)));
            lived
        }),
        ("ready by 1", || Lived::ready(1)),
        ("ejected, on 1", || {
            let mut lived = Lived::ready(1);
            lived.on(Event::Eject(Cause::BlackHole));
            lived
        }),
        ("ejected, asked", || {
            let mut lived = Lived::ready(1);
            lived.on(Event::Eject(Cause::BlackHole));
            lived.alarm();
            lived
        }),
        ("backoff", || {
            let mut lived = Lived::new();
            lived.on(Event::Wanted);
            lived.on(Event::Turn(ConnectionId(1)));
            lived.on(Event::DialFailed(ConnectionId(1), "refused".into()));
            lived
        }),
        ("health asked", Lived::asked),
        ("serving", || Lived::answered(true)),
        ("not serving", || Lived::answered(false)),
        ("ejected, checked", || {
            let mut lived = Lived::answered(true);
            lived.on(Event::Eject(Cause::Failing));
            lived.alarm();
            lived
        }),
    ];
    let one = ConnectionId(1);
    let events = [
        ("wanted", Event::Wanted),
        ("connected 1", Event::Connected(one)),
        ("dial 1 failed", Event::DialFailed(one, "refused".into())),
        ("1 lost, of use", lost(1, true)),
        ("1 lost, of none", lost(1, false)),
        ("suspected", Event::Eject(Cause::BlackHole)),
        ("pong of 1", Event::Pong(one)),
        ("checks", Event::Checks(true)),
        ("no checks", Event::Checks(false)),
        ("1 serves", health(1, true)),
        ("1 serves not", health(1, false)),
        ("readdressed", Event::Readdressed),
        ("held", Event::Held(true)),
        ("not needed", Event::NotNeeded),
        ("alarm", Event::Alarm),
    ];
    let mut table = String::new();
    for (name, life) in lives {
        for (what, event) in &events {
            let mut lived = life();
            let effects = if matches!(event, Event::Alarm) {
                if lived.life.alarm().is_none() { vec![] } else { lived.alarm() }
            } else {
                lived.on(event.clone())
            };
            let state = format!("{:?}", lived.life.state());
            writeln!(table, "{name:16} + {what:15} -> {state:10} {effects:?}").expect("a string");
        }
    }
    insta::assert_snapshot!("table", table);
}

#[test]
fn backoff_grows_by_1_6_with_jitter_up_to_its_limit() {
    let mut lived = Lived::new();
    lived.on(Event::Wanted);
    let mut expected = 1.0f64;
    for id in 0..30 {
        lived.on(Event::Turn(ConnectionId(id)));
        lived.on(Event::DialFailed(ConnectionId(id), "refused".into()));
        let wait = lived.life.alarm().expect("waiting") - lived.now;
        let range = expected * 0.8 - 1e-6..=expected * 1.2 + 1e-6;
        assert!(range.contains(&wait.as_secs_f64()), "attempt {id}: {wait:?} of {expected}");
        expected = (expected * 1.6).min(120.0);
        assert_eq!(lived.alarm(), [Effect::Queue]);
    }
}

#[test]
fn a_lost_connection_is_redialled_at_once_and_hoped_for_until_that_fails() {
    let mut lived = Lived::ready(1);
    assert_eq!(lived.on(lost(1, true)), [Effect::Queue]);
    assert!(lived.life.is_hopeful());
    lived.on(Event::Turn(ConnectionId(2)));
    assert!(lived.life.is_hopeful());
    lived.on(Event::DialFailed(ConnectionId(2), "refused".into()));
    assert!(!lived.life.is_hopeful());
    lived.alarm();
    lived.on(Event::Turn(ConnectionId(3)));
    assert!(
        !lived.life.is_hopeful(),
        "an endpoint whose last attempt failed counts as failed until it is Ready"
    );
}

#[test]
fn a_server_that_only_accepts_and_closes_is_not_dialled_in_a_loop() {
    let mut lived = Lived::ready(1);
    assert_eq!(lived.on(lost(1, false)), [Effect::Queue], "the first redial is free");
    assert!(lived.life.is_hopeful());
    lived.on(Event::Turn(ConnectionId(2)));
    lived.on(Event::Connected(ConnectionId(2)));
    for id in 2..4 {
        assert_eq!(lived.on(lost(id, false)), [], "no dial at once");
        lived.alarm();
        lived.on(Event::Turn(ConnectionId(id + 1)));
        lived.on(Event::Connected(ConnectionId(id + 1)));
    }
    assert_eq!(lived.life.state(), State::Ejected, "three lost connections in a row");
}

#[test]
fn an_ejected_endpoint_comes_back_through_an_answered_ping_only() {
    let mut lived = Lived::ready(1);
    lived.on(Event::Eject(Cause::BlackHole));
    assert_eq!(lived.life.alarm(), Some(lived.now + EJECTION_BASE));
    assert_eq!(lived.on(Event::Pong(ConnectionId(1))), [], "a PING of before its time says nothing");
    assert_eq!(lived.alarm(), [Effect::Ping(ConnectionId(1))]);
    assert_eq!(lived.life.state(), State::Ejected);
    assert_eq!(lived.on(Event::Pong(ConnectionId(1))), [Effect::Forgive]);
    assert_eq!(lived.life.state(), State::Ready);
}

#[test]
fn an_ejected_endpoint_that_does_not_answer_is_dialled_anew_and_asked_again() {
    let mut lived = Lived::ready(1);
    lived.on(Event::Eject(Cause::BlackHole));
    lived.alarm();
    assert_eq!(lived.alarm(), [Effect::Kill(ConnectionId(1))], "the PING is overdue");
    assert_eq!(lived.on(lost(1, true)), [Effect::Queue]);
    lived.on(Event::Turn(ConnectionId(2)));
    assert_eq!(lived.on(Event::Connected(ConnectionId(2))), [Effect::Ping(ConnectionId(2))]);
    lived.on(Event::Pong(ConnectionId(2)));
    assert_eq!(lived.life.state(), State::Ready);
}

#[test]
fn ejections_last_longer_each_time_and_are_forgotten() {
    let mut lived = Lived::ready(1);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        lived.on(Event::Eject(Cause::BlackHole));
        let until = lived.life.alarm().expect("an end");
        assert_eq!(until - lived.now, Duration::from_secs(seconds));
        lived.alarm();
        lived.on(Event::Pong(ConnectionId(1)));
    }
    lived.after(EJECTION_FORGOTTEN).on(Event::Eject(Cause::BlackHole));
    assert_eq!(lived.life.alarm(), Some(lived.now + EJECTION_BASE));
}

#[test]
fn a_changed_address_serves_on_until_the_new_one_is_connected() {
    let mut lived = Lived::ready(1);
    assert_eq!(lived.on(Event::Readdressed), [Effect::Queue]);
    lived.on(Event::Turn(ConnectionId(2)));
    assert_eq!((lived.life.state(), lived.life.link()), (State::Ready, Some(ConnectionId(1))));
    assert_eq!(lived.on(Event::Connected(ConnectionId(2))), [Effect::Close(ConnectionId(1))]);
    assert_eq!(lived.life.link(), Some(ConnectionId(2)));
}

#[test]
fn an_address_that_changes_again_while_dialling_gives_up_the_former_dial() {
    let mut lived = Lived::ready(1);
    lived.on(Event::Readdressed);
    lived.on(Event::Turn(ConnectionId(2)));
    assert_eq!(lived.on(Event::Readdressed), [Effect::Close(ConnectionId(2)), Effect::Queue]);
    lived.on(Event::Turn(ConnectionId(3)));
    assert_eq!(lived.on(Event::Connected(ConnectionId(2))), [Effect::Close(ConnectionId(2))], "too late");
    assert_eq!(lived.life.link(), Some(ConnectionId(1)));
}

#[test]
fn a_held_endpoint_is_asked_and_let_go_when_it_does_not_answer_or_ends() {
    let mut silent = Lived::ready(1);
    assert_eq!(silent.on(Event::Held(true)), [Effect::Ping(ConnectionId(1))]);
    assert_eq!(silent.life.alarm(), Some(silent.now + HELD_PING));
    assert_eq!(silent.alarm(), [Effect::Kill(ConnectionId(1))]);
    assert_eq!(silent.on(lost(1, true)), [Effect::Forget], "and not dialled again");

    let mut alive = Lived::ready(1);
    alive.on(Event::Held(true));
    alive.on(Event::Pong(ConnectionId(1)));
    assert_eq!((alive.life.state(), alive.life.alarm()), (State::Ready, None));
    alive.on(Event::Held(false));
    assert_eq!(alive.on(lost(1, true)), [Effect::Queue], "discovery has it again");
}

#[test]
fn an_endpoint_takes_calls_only_while_its_health_check_says_so() {
    let mut lived = Lived::asked();
    assert_eq!((lived.life.state(), lived.life.serves()), (State::Connecting, false));
    assert!(lived.life.is_hopeful(), "calls wait for its first word");
    for serves in [true, false, true] {
        assert_eq!(lived.on(health(1, serves)), []);
        let state = if serves { State::Ready } else { State::NotServing };
        assert_eq!((lived.life.state(), lived.life.serves()), (state, serves));
        assert!(!lived.life.is_hopeful());
        assert_eq!(lived.life.link(), Some(ConnectionId(1)), "the connection stays");
    }
    assert_eq!(lived.on(health(7, false)), [], "a word of another connection");
    assert_eq!(lived.life.state(), State::Ready);
}

#[test]
fn an_endpoint_that_did_not_serve_is_not_hoped_for_on_its_next_connection() {
    let mut lived = Lived::answered(false);
    lived.on(lost(1, true));
    lived.on(Event::Turn(ConnectionId(2)));
    assert_eq!(lived.on(Event::Connected(ConnectionId(2))), [Effect::Check(ConnectionId(2))]);
    assert_eq!((lived.life.state(), lived.life.is_hopeful()), (State::Connecting, false));
    lived.on(health(2, true));
    assert_eq!(lived.life.state(), State::Ready);
}

#[test]
fn an_ejected_endpoint_comes_back_through_its_health_check_too() {
    let mut lived = Lived::answered(true);
    lived.on(Event::Eject(Cause::Failing));
    assert_eq!(lived.on(health(1, true)), [], "before its time it says nothing");
    assert_eq!(lived.life.state(), State::Ejected);
    lived.alarm();
    assert_eq!(lived.on(health(1, true)), [Effect::Forgive]);
    assert_eq!(lived.life.state(), State::Ready);

    lived.on(Event::Eject(Cause::Failing));
    lived.on(health(1, false));
    lived.alarm();
    assert_eq!(lived.on(Event::Pong(ConnectionId(1))), [Effect::Forgive]);
    assert_eq!(lived.life.state(), State::NotServing, "it lives, and says that it does not serve");
}

#[test]
fn a_connection_that_inherits_is_asked_and_what_was_said_holds_until_then() {
    let mut lived = Lived::answered(true);
    assert_eq!(lived.on(Event::Inherited(ConnectionId(2))), [Effect::Check(ConnectionId(2))]);
    assert_eq!(lived.life.state(), State::Ready);
    lived.on(health(1, false));
    assert_eq!(lived.life.state(), State::Ready, "a word of before");
}

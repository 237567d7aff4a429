//! What `register` does when; pure.
//!
//! ```text
//! state     left by                                                              doing
//! Waiting   the check passes -> Standing                                         Register
//!           asked to end -> Ending, without COMMAND the end                      Forward
//! Standing  asked to end -> Leaving; out of clients' sight already -> as Due     Stop
//!           an operator's `exit` is obeyed, or the id is lost -> as Due
//! Leaving   nobody is sent here any more, Due, or asked again -> Ending,         Forward
//!           without COMMAND the end                                              Deregister
//! Ending    COMMAND ends -> the end                                              Deregister
//! ```
//! COMMAND that ends by itself is the end from every state. So COMMAND hears of a stop only when clients no longer send
//! it work, and its record is gone when it is.

use std::sync::Arc;
use std::time::Duration;

use svc_registry::{Phase, Verdict};
use tokio::time::Instant;

use super::signals::Signal;

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Verdict(Verdict),
    Phase(Phase),
    Signal(Signal),
    /// The command has ended, with this code.
    Ended(u8),
    /// The id has another owner, or nobody keeps the record.
    Lost(Arc<str>),
    /// What [`Life::due`] told of is due.
    Due,
    Nothing,
}

/// What is done about it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Register,
    Ready,
    Unready(Arc<str>),
    /// Out of clients' sight for good.
    Stop,
    Forward(Signal),
    Deregister,
    End(End),
}

/// How it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Asked,
    Command(u8),
    Lost(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Waiting,
    Standing,
    Leaving { signal: Signal, until: Instant },
    Ending,
    Over,
}

/// See the module's table.
#[derive(Debug)]
pub(super) struct Life {
    at: At,
    /// There is a command, and it has not ended.
    wrapped: bool,
    /// How long leaving clients' sight may take.
    patience: Duration,
    registered: bool,
    /// What its check said last.
    passes: bool,
    phase: Phase,
    lost: Option<Arc<str>>,
}

impl Life {
    pub(super) fn new(wrapped: bool, patience: Duration) -> Life {
        let (at, phase) = (At::Waiting, Phase::Serving);
        Life { at, wrapped, patience, registered: false, passes: false, phase, lost: None }
    }

    /// It was asked to end.
    pub(super) fn is_leaving(&self) -> bool {
        !matches!(self.at, At::Waiting | At::Standing)
    }

    /// Its check has passed last, and nobody has asked it to end. The registration follows later.
    pub(super) fn is_offered(&self) -> bool {
        self.passes && !self.is_leaving()
    }

    /// When [`Event::Due`] is owed.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.at {
            At::Leaving { until, .. } => Some(until),
            _ => None,
        }
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        if let Event::Verdict(verdict) = &event {
            self.passes = verdict.is_ok();
        }
        match (self.at, event) {
            (At::Over, _) | (_, Event::Nothing) => Vec::new(),
            (_, Event::Ended(code)) => {
                self.wrapped = false;
                self.end(End::Command(code))
            }
            (_, Event::Signal(signal)) if self.wrapped && !signal.stops() => vec![Action::Forward(signal)],
            (At::Waiting, Event::Verdict(Ok(()))) => {
                (self.at, self.registered) = (At::Standing, true);
                vec![Action::Register]
            }
            (At::Standing, Event::Verdict(Ok(()))) => vec![Action::Ready],
            (At::Standing, Event::Verdict(Err(reason))) => vec![Action::Unready(reason)],
            (At::Waiting, Event::Signal(signal)) => self.go_on(signal),
            (At::Standing, Event::Signal(signal)) => {
                if self.is_out() {
                    return self.go_on(signal);
                }
                self.at = At::Leaving { signal, until: now + self.patience };
                vec![Action::Stop]
            }
            (At::Leaving { .. }, Event::Signal(signal)) => self.go_on(signal),
            (At::Leaving { signal, .. }, Event::Due) => self.go_on(signal),
            (At::Ending, Event::Signal(signal)) => vec![Action::Forward(signal)],
            (at, Event::Phase(phase)) => {
                self.phase = phase;
                match at {
                    At::Leaving { signal, .. } if self.is_out() => self.go_on(signal),
                    At::Standing if phase == Phase::Exit => self.go_on(Signal::Terminate),
                    _ => Vec::new(),
                }
            }
            (at, Event::Lost(why)) => {
                self.lost = Some(why);
                match at {
                    At::Ending => Vec::new(),
                    _ => self.go_on(Signal::Terminate),
                }
            }
            (At::Waiting, Event::Verdict(Err(_)) | Event::Due)
            | (At::Standing, Event::Due)
            | (At::Leaving { .. } | At::Ending, Event::Verdict(_))
            | (At::Ending, Event::Due) => Vec::new(),
        }
    }

    /// Clients know, and have had time to: nobody is sent here.
    fn is_out(&self) -> bool {
        matches!(self.phase, Phase::Drained | Phase::Exit | Phase::Removed)
    }

    /// The command's turn to end; without one it is the end.
    fn go_on(&mut self, signal: Signal) -> Vec<Action> {
        if self.wrapped {
            self.at = At::Ending;
            return vec![Action::Forward(signal)];
        }
        self.end(End::Asked)
    }

    fn end(&mut self, end: End) -> Vec<Action> {
        self.at = At::Over;
        let end = self.lost.take().map_or(end, End::Lost);
        let goodbye = self.registered.then_some(Action::Deregister);
        goodbye.into_iter().chain([Action::End(end)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    /// Events in a word each, and the actions of each; a line each step.
    fn told(wrapped: bool, events: &[Event]) -> Vec<Vec<Action>> {
        let now = Instant::now();
        let mut life = Life::new(wrapped, PATIENCE);
        events.iter().map(|event| life.on(event.clone(), now)).collect()
    }

    fn pass() -> Event {
        Event::Verdict(Ok(()))
    }

    fn fail() -> Event {
        Event::Verdict(Err("away".into()))
    }

    const TERM: Event = Event::Signal(Signal::Terminate);
    const INT: Event = Event::Signal(Signal::Interrupt);

    fn end(end: End) -> Vec<Action> {
        vec![Action::Deregister, Action::End(end)]
    }

    #[test]
    fn it_registers_once_the_check_has_passed_and_follows_it() {
        assert_eq!(
            told(false, &[fail(), pass(), fail(), pass()]),
            [vec![], vec![Action::Register], vec![Action::Unready("away".into())], vec![Action::Ready]]
        );
    }

    #[test]
    fn an_address_leaves_clients_sight_and_then_says_goodbye() {
        for leaves in [Event::Phase(Phase::Drained), Event::Due, TERM] {
            assert_eq!(
                told(false, &[pass(), TERM, Event::Phase(Phase::Draining), fail(), leaves]),
                [vec![Action::Register], vec![Action::Stop], vec![], vec![], end(End::Asked)]
            );
        }
    }

    #[test]
    fn a_command_hears_of_a_stop_when_clients_no_longer_send_it_work() {
        for leaves in [Event::Phase(Phase::Drained), Event::Due] {
            let forwarded = vec![Action::Forward(Signal::Interrupt)];
            assert_eq!(
                told(true, &[pass(), INT, leaves, Event::Ended(3)]),
                [vec![Action::Register], vec![Action::Stop], forwarded, end(End::Command(3))]
            );
        }
    }

    #[test]
    fn who_asks_again_is_heard_at_once() {
        let forward = |signal| vec![Action::Forward(signal)];
        assert_eq!(
            told(true, &[pass(), TERM, INT, TERM, Event::Ended(130)]),
            [
                vec![Action::Register],
                vec![Action::Stop],
                forward(Signal::Interrupt),
                forward(Signal::Terminate),
                end(End::Command(130))
            ]
        );
    }

    #[test]
    fn who_was_never_registered_has_nothing_to_take_back() {
        assert_eq!(told(false, &[fail(), TERM]), [vec![], vec![Action::End(End::Asked)]]);
        assert_eq!(told(true, &[Event::Ended(1)]), [vec![Action::End(End::Command(1))]]);
        assert_eq!(
            told(true, &[TERM, pass(), Event::Ended(0)]),
            [vec![Action::Forward(Signal::Terminate)], vec![], vec![Action::End(End::Command(0))]],
            "a check that passes late registers nobody"
        );
    }

    #[test]
    fn a_command_that_ends_by_itself_is_the_end_from_every_state() {
        for before in [vec![], vec![fail()], vec![TERM]] {
            let mut events = vec![pass()];
            events.extend(before);
            events.push(Event::Ended(137));
            assert_eq!(told(true, &events).last(), Some(&end(End::Command(137))), "{events:?}");
        }
    }

    #[test]
    fn other_signals_are_the_commands_alone() {
        assert_eq!(
            told(true, &[Event::Signal(Signal::Hangup), pass(), Event::Signal(Signal::User1)]),
            [
                vec![Action::Forward(Signal::Hangup)],
                vec![Action::Register],
                vec![Action::Forward(Signal::User1)]
            ]
        );
    }

    #[test]
    fn who_is_drained_already_does_not_wait_for_it() {
        assert_eq!(
            told(true, &[pass(), Event::Phase(Phase::Drained), TERM]),
            [vec![Action::Register], vec![], vec![Action::Forward(Signal::Terminate)]]
        );
        assert_eq!(
            told(false, &[pass(), Event::Phase(Phase::Removed), TERM]),
            [vec![Action::Register], vec![], end(End::Asked)]
        );
    }

    #[test]
    fn an_operators_exit_ends_it() {
        assert_eq!(told(false, &[pass(), Event::Phase(Phase::Exit)])[1], end(End::Asked));
        assert_eq!(
            told(true, &[pass(), Event::Phase(Phase::Exit), Event::Ended(0)])[1..],
            [vec![Action::Forward(Signal::Terminate)], end(End::Command(0))]
        );
    }

    #[test]
    fn who_lost_its_id_ends_with_the_reason_whatever_the_command_says() {
        let lost = || Event::Lost("another".into());
        assert_eq!(told(false, &[pass(), lost()])[1], end(End::Lost("another".into())));
        assert_eq!(
            told(true, &[pass(), lost(), Event::Ended(0)])[1..],
            [vec![Action::Forward(Signal::Terminate)], end(End::Lost("another".into()))]
        );
    }

    #[test]
    fn who_fails_its_check_is_not_offered_whatever_its_phase_still_is() {
        let now = Instant::now();
        let mut life = Life::new(false, PATIENCE);
        let mut offered = |event| {
            life.on(event, now);
            life.is_offered()
        };
        let events = [fail(), pass(), Event::Phase(Phase::Serving), fail(), Event::Nothing, pass(), TERM];
        assert_eq!(events.map(&mut offered), [false, true, true, false, false, true, false]);
    }

    #[test]
    fn leaving_has_a_limit() {
        let now = Instant::now();
        let mut life = Life::new(true, PATIENCE);
        life.on(pass(), now);
        assert_eq!(life.due(), None);
        life.on(TERM, now);
        assert_eq!(life.due(), Some(now + PATIENCE));
        life.on(Event::Due, now + PATIENCE);
        assert_eq!(life.due(), None);
    }
}

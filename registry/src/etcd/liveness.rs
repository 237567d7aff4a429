//! Finds a watch stream that is silent because nobody is there any more (the catalog's law 5, the registrar's law 3).
//!
//! A quiet stream is asked for its progress; any message counts as the answer. HTTP/2 keepalive, which the transport
//! does, finds a dead connection; this finds a member that is alive and no longer speaks on the stream.

use std::time::Duration;

use tokio::time::Instant;

/// A stream that said nothing for so long is asked.
const QUIET: Duration = Duration::from_secs(10);

/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a watch may wait for an answer on a stream that speaks otherwise.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(15);

/// What the time that has passed means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again then.
    Wait(Instant),
    /// Ask for progress, and look again then.
    Ask(Instant),
    /// It was asked and did not answer; `ever`: whether it had answered before.
    Silent { ever: bool },
}

#[derive(Debug)]
pub(crate) struct Liveness {
    heard: Instant,
    asked: Option<Instant>,
    answered: bool,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard: now, asked: None, answered: false }
    }

    /// When to look first.
    pub(crate) fn first_look(&self) -> Instant {
        self.heard + QUIET
    }

    /// A message came; `true` if it answered a question.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        self.heard = now;
        let answer = self.asked.take().is_some();
        self.answered |= answer;
        answer
    }

    /// Judges the silence. After [`Verdict::Silent`] it starts over, for whoever keeps the stream all the same.
    pub(crate) fn look(&mut self, now: Instant) -> Verdict {
        match self.asked {
            Some(asked) if now >= asked + ANSWER => {
                (self.heard, self.asked) = (now, None);
                Verdict::Silent { ever: self.answered }
            }
            Some(asked) => Verdict::Wait(asked + ANSWER),
            None if now >= self.heard + QUIET => {
                self.asked = Some(now);
                Verdict::Ask(now + ANSWER)
            }
            None => Verdict::Wait(self.heard + QUIET),
        }
    }
}

//! One watch stream for many single keys and ranges, resumed without a gap.
//!
//! In come watches, each with the revision that it starts from; out come the keys that changed, or a doubt. A
//! watcher of this module never needs the changed value: it reads again whenever a key was touched after the
//! revision that it knows, so a doubt (compacted, refused, rewound) is answered in the same way. The catalog, which
//! has to apply every event, has a session of its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use svc_channel::Peer;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::Etcd;
use super::liveness::{Liveness, UNANSWERED, Verdict};
use crate::backoff::Backoff;
use crate::name::Revision;

/// Commands wait for the stream no longer than this many; a full queue means that the stream is stuck.
const COMMANDS: usize = 32 * 1024;
/// Events wait for the owner, who holds up the stream when it falls behind.
const EVENTS: usize = 256;
/// How long the first answer on a new stream may take; a follower may wait for a leader for some seconds.
const OPENING: Duration = Duration::from_secs(5);

/// Names a watch; chosen by the owner. Putting another watch under the same token replaces it.
pub(crate) type Token = u64;

#[derive(Debug)]
enum Command {
    Watch { token: Token, range: Range, from: Revision },
    Stop { token: Token },
}

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) enum Range {
    Key(String),
    Prefix(String),
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Key(key) => f.write_str(key),
            Range::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// What the owner of watches learns.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// These keys were put or deleted at these revisions.
    Touched { token: Token, keys: Vec<(Vec<u8>, Revision)> },
    /// The watch is over and changes may have been missed: read, and watch again from there.
    Doubt { token: Token, reason: String },
}

/// The handle of the stream's task; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Watcher {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<WatchEvent>,
}

impl Watcher {
    /// Starts the task. No stream is opened before the first watch.
    pub(crate) fn start(etcd: Etcd) -> Watcher {
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let (happened, events) = mpsc::channel(EVENTS);
        // Owned by this handle: ends when the handle is dropped (both channels close); bounded by its two queues;
        // its errors become a new stream, or `WatchEvent::Doubt`.
        tokio::spawn(
            Task {
                etcd,
                commanded,
                happened,
                watches: HashMap::new(),
                tokens: HashMap::new(),
                last_id: 0,
                asked: BTreeMap::new(),
                replaced_for_silence: false,
                generation: 0,
                peer: Peer::default(),
            }
            .run(),
        );
        Watcher { commands, events }
    }

    /// Watches `range` from `from` on, without waiting. `false`: the queue is full, ask again later.
    pub(crate) fn watch(&self, token: Token, range: Range, from: Revision) -> bool {
        self.commands.try_send(Command::Watch { token, range, from }).is_ok()
    }

    /// Ends a watch. Events that are under way may still come.
    pub(crate) fn stop(&self, token: Token) -> bool {
        self.commands.try_send(Command::Stop { token }).is_ok()
    }

    /// The next event. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }
}

struct Watch {
    range: Range,
    /// Where a new stream goes on: one after the last complete revision.
    next: Revision,
    /// Ours, never 0, never reused: etcd 3.5.1 to 3.5.5 stop watch 0 when they refuse another.
    id: i64,
}

struct Task {
    etcd: Etcd,
    commanded: mpsc::Receiver<Command>,
    happened: mpsc::Sender<WatchEvent>,
    watches: HashMap<Token, Watch>,
    /// The watch of each id on the present stream.
    tokens: HashMap<i64, Token>,
    last_id: i64,
    /// Those that the present stream was asked for and has not answered, since when; watches are answered in the order of
    /// their ids.
    asked: BTreeMap<i64, Instant>,
    /// The last stream was given up for a silence that was perhaps its nature (`etcd grpc-proxy` has no progress).
    replaced_for_silence: bool,
    /// The token that the present stream was opened with.
    generation: u64,
    /// Where the present stream goes.
    peer: Peer,
}

/// The handle is gone: the task ends.
struct Dropped;

/// Says something on the stream, which takes no time unless nobody reads at the other end.
async fn in_time(said: impl Future<Output = Result<(), etcd_client::Error>>) -> Result<(), String> {
    match tokio::time::timeout(OPENING, said).await {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the watch stream took nothing for {OPENING:?}")),
    }
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::stream();
        let mut random = fastrand::Rng::new();
        loop {
            let outcome =
                if self.watches.is_empty() { self.idle().await } else { self.stream(&mut backoff).await };
            match outcome {
                Err(Dropped) => return,
                Ok(None) => {}
                Ok(Some(reason)) => {
                    tracing::debug!(%reason, "watch stream lost");
                    if let Err(Dropped) = self.pause(backoff.next(&mut random)).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits, and hears its owner meanwhile: one that is gone must not leave a task that dials for ever.
    async fn pause(&mut self, time: Duration) -> Result<(), Dropped> {
        let over = tokio::time::sleep(time);
        tokio::pin!(over);
        loop {
            // In order: a pause of no time at all hears of an owner that is gone, too.
            tokio::select! {
                biased;
                command = self.commanded.recv() => {
                    self.remember(command.ok_or(Dropped)?);
                }
                () = &mut over => return Ok(()),
            }
        }
    }

    async fn idle(&mut self) -> Result<Option<String>, Dropped> {
        let command = self.commanded.recv().await.ok_or(Dropped)?;
        self.remember(command);
        Ok(None)
    }

    /// One life of the stream; returns why it ended, or nothing when the last watch was stopped.
    async fn stream(&mut self, backoff: &mut Backoff) -> Result<Option<String>, Dropped> {
        let mut stream = match self.open().await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(None),
            Err(reason) => return Ok(Some(reason)),
        };
        let mut liveness = Liveness::new(Instant::now());
        let mut look = liveness.first_look();
        loop {
            // Fair: each branch is short, and none may starve the other.
            tokio::select! {
                command = self.commanded.recv() => {
                    let command = command.ok_or(Dropped)?;
                    let (replaced, added) = self.remember(command);
                    if let Some(id) = replaced
                        && let Err(error) = in_time(stream.cancel(id)).await
                    {
                        return Ok(Some(error));
                    }
                    if added.is_some() && self.etcd.token_generation() != self.generation {
                        return Ok(Some("the user has a new token, which needs a new stream".to_owned()));
                    }
                    if let Some(token) = added
                        && let Err(error) = self.create(&mut stream, token).await
                    {
                        return Ok(Some(error));
                    }
                    if self.watches.is_empty() {
                        return Ok(None);
                    }
                }
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        backoff.reset();
                        if liveness.heard(Instant::now()) {
                            self.replaced_for_silence = false;
                        }
                        if let Some(id) = self.take(&response).await?
                            && let Err(error) = in_time(stream.cancel(id)).await
                        {
                            return Ok(Some(error));
                        }
                    }
                    Ok(None) => {
                        return Ok(Some(format!("etcd at {} ended the watch stream", self.etcd.member(&self.peer))));
                    }
                    Err(error) => return Ok(Some(self.trouble("watching own keys", error))),
                },
                () = tokio::time::sleep_until(look) => {
                    let now = Instant::now();
                    if self.asked.first_key_value().is_some_and(|(_, since)| now >= *since + UNANSWERED) {
                        return Ok(Some(self.silence("leaves a watch unanswered")));
                    }
                    look = match liveness.look(now) {
                        Verdict::Wait(at) => at,
                        Verdict::Ask(at) => {
                            if let Err(error) = in_time(stream.request_progress()).await {
                                return Ok(Some(error));
                            }
                            at
                        }
                        Verdict::Silent { ever } if ever || !self.replaced_for_silence => {
                            self.replaced_for_silence |= !ever;
                            return Ok(Some(self.silence("leaves a progress request unanswered")));
                        }
                        Verdict::Silent { .. } => liveness.first_look(),
                    };
                }
            }
        }
    }

    fn silence(&self, what: &str) -> String {
        format!("etcd at {} {what}", self.etcd.member(&self.peer))
    }

    /// Opens a stream and puts all watches on it, each where it stopped.
    async fn open(&mut self) -> Result<Option<WatchStream>, String> {
        self.tokens.clear();
        self.asked.clear();
        let tokens: Vec<Token> = self.watches.keys().copied().collect();
        let Some((first, rest)) = tokens.split_first() else { return Ok(None) };
        let Some((key, options)) = self.options(*first) else { return Ok(None) };
        let (mut client, peer) = self.etcd.watch_stream();
        self.peer = peer;
        self.generation = self.etcd.token_generation();
        let opening = tokio::time::timeout(OPENING, client.watch(key, Some(options))).await;
        let mut stream = match opening {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.trouble("watching own keys", error)),
            Err(_) => {
                let member = self.etcd.member(&self.peer);
                return Err(format!("etcd at {member} left a watch unanswered for {OPENING:?}"));
            }
        };
        for token in rest {
            self.create(&mut stream, *token).await?;
        }
        Ok(Some(stream))
    }

    async fn create(&mut self, stream: &mut WatchStream, token: Token) -> Result<(), String> {
        match self.options(token) {
            Some((key, options)) => in_time(stream.watch(key, Some(options))).await,
            None => Ok(()),
        }
    }

    fn trouble(&self, doing: &str, error: etcd_client::Error) -> String {
        self.etcd.stream_error(doing, &self.peer, error).to_string()
    }

    /// The request for a watch, under a fresh id.
    fn options(&mut self, token: Token) -> Option<(String, WatchOptions)> {
        self.last_id += 1;
        let watch = self.watches.get_mut(&token)?;
        watch.id = self.last_id;
        self.tokens.insert(watch.id, token);
        self.asked.insert(watch.id, Instant::now());
        let options =
            WatchOptions::new().with_watch_id(watch.id).with_start_revision(watch.next.0).with_fragment();
        Some(match &watch.range {
            Range::Key(key) => (key.clone(), options),
            Range::Prefix(prefix) => (prefix.clone(), options.with_prefix()),
        })
    }

    /// Notes a command: the id of the watch that it ends, and the token of the one that it begins.
    fn remember(&mut self, command: Command) -> (Option<i64>, Option<Token>) {
        let (old, added) = match command {
            Command::Watch { token, range, from } => {
                (self.watches.insert(token, Watch { range, next: from, id: 0 }), Some(token))
            }
            Command::Stop { token } => (self.watches.remove(&token), None),
        };
        // Known on this stream only: an id of an earlier one is not cancelled here.
        let ended = old.map(|watch| watch.id).filter(|id| self.tokens.remove(id).is_some());
        (ended, added)
    }

    /// The id of the watch that a response is about. From 3.5 on etcd refuses a watch under the id -1 (3.5.1 to 3.5.5:
    /// 0) in place of ours; then it is the oldest that has no answer.
    fn concerned(&self, response: &WatchResponse) -> Option<i64> {
        let id = response.watch_id();
        if id > 0 || !response.created() || !response.canceled() {
            return Some(id);
        }
        self.asked.keys().copied().find(|id| self.tokens.contains_key(id))
    }

    /// Turns a response into events; the id of a watch that is in etcd still and of no use, to be cancelled. A refusal is
    /// `created && canceled`, so `canceled` is asked first.
    async fn take(&mut self, response: &WatchResponse) -> Result<Option<i64>, Dropped> {
        let Some(id) = self.concerned(response) else { return Ok(None) };
        if response.created() {
            self.asked = self.asked.split_off(&id.saturating_add(1));
        }
        let Some(&token) = self.tokens.get(&id) else { return Ok(None) }; // stopped meanwhile
        let Some(watch) = self.watches.get_mut(&token) else { return Ok(None) };
        let header = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        if response.canceled() && response.compact_revision() == 0 {
            // The owner reads now, and watches again: by then it is known whether the token was to blame.
            self.etcd.check_token().await;
        }
        let event = if response.canceled() {
            let range = &watch.range;
            let reason = match response.compact_revision() {
                0 => self
                    .etcd
                    .refused_watch(&range.to_string(), &self.peer, response.cancel_reason())
                    .to_string(),
                revision => format!("compacted up to revision {revision}"),
            };
            WatchEvent::Doubt { token, reason }
        } else if response.created() && header < watch.next.0 - 1 {
            // Behind what we know: restored, wiped, or a lagging member. A read by the owner tells.
            let reason = format!("etcd is at revision {header}, before our {}", watch.next.0);
            WatchEvent::Doubt { token, reason }
        } else {
            let keys: Vec<_> = response
                .events()
                .iter()
                .filter_map(|event| event.kv())
                .map(|kv| (kv.key().to_vec(), Revision(kv.mod_revision())))
                .collect();
            let Some((_, last)) = keys.last() else { return Ok(None) };
            // The rest of a fragmented revision is still to come: a new stream has to begin with it again.
            if !response.0.fragment {
                watch.next = last.next();
            }
            WatchEvent::Touched { token, keys }
        };
        let doubted = matches!(event, WatchEvent::Doubt { .. });
        if doubted {
            self.watches.remove(&token);
            self.tokens.remove(&id);
        }
        self.happened.send(event).await.map_err(|_| Dropped)?;
        // One that etcd refused it has ended. One that we doubt would run on beside the next one, and one that fell behind
        // a compaction stays in etcd's books until it is cancelled, as etcd's own client does.
        let refused = response.canceled() && response.compact_revision() == 0;
        Ok((doubted && !refused).then_some(id))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use svc_channel::{BoxIo, connector_fn};
    use tokio::runtime::Handle;

    use super::*;
    use crate::etcd::EtcdConfig;

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_is_gone_while_etcd_is_away_leaves_no_task_behind() {
        let refused = connector_fn(|_| async { Err::<BoxIo, _>(io::ErrorKind::ConnectionRefused.into()) });
        let etcd = Etcd::new(EtcdConfig::default().with_connector(refused)).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = Handle::current().metrics().num_alive_tasks();
        let watcher = Watcher::start(etcd.clone());
        assert!(watcher.watch(1, Range::Key("/services/greeter/i-1".to_owned()), Revision(1)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(Handle::current().metrics().num_alive_tasks() > before, "it tries to open a stream");
        drop(watcher);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before, "tasks");
    }
}

//! A heartbeat, as Consul's TTL check knows it: the instance, or whoever watches it, touches a file within each TTL.
//!
//! Any change of the file's time or size is a beat, and only what changes while we look: its age is told by our own clock,
//! so that neither a file of yesterday nor a clock that was set counts. A file that begins with `fail` says that the
//! instance is not well, with the rest of the line as the reason; that is obeyed without waiting for the TTL.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// As much of the file as may hold a reason.
const MOST: u64 = 512;

/// Which state a file is in; another one is a beat.
type Mark = (SystemTime, u64);

/// A file that is looked at now and then.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat {
    file: Arc<Path>,
    known: Arc<Mutex<Known>>,
}

/// What a look found: the file's state, and the reason if it says `fail`.
struct Look {
    mark: Mark,
    fails: Option<String>,
}

#[derive(Debug)]
struct Known {
    within: Duration,
    mark: Option<Mark>,
    beat: Option<Instant>,
}

impl Heartbeat {
    /// Beats count from now on.
    pub(super) fn new(file: &Path, within: Duration) -> Heartbeat {
        let mark = std::fs::metadata(file).ok().and_then(|found| mark(&found).ok());
        let known = Known { within, mark, beat: None };
        Heartbeat { file: file.into(), known: Arc::new(Mutex::new(known)) }
    }

    /// Looks at the file now.
    pub(super) async fn look(self) -> Result<(), String> {
        let found = read(self.file.to_path_buf()).await;
        // Nothing in it can be half done.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.judge(found, Instant::now()).map_err(|reason| format!("{}: {reason}", self.file.display()))
    }
}

fn mark(found: &std::fs::Metadata) -> io::Result<Mark> {
    Ok((found.modified()?, found.len()))
}

async fn read(file: PathBuf) -> io::Result<Look> {
    let mark = mark(&tokio::fs::metadata(&file).await?)?;
    let mut text = Vec::new();
    tokio::fs::File::open(&file).await?.take(MOST).read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let fails = line.strip_prefix("fail").map(|reason| reason.trim_matches([' ', ':']).to_owned());
    Ok(Look { mark, fails })
}

impl Known {
    fn judge(&mut self, look: io::Result<Look>, now: Instant) -> Result<(), String> {
        let look = match look {
            Ok(look) => look,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Made again with the same time and size it is another file.
                (self.mark, self.beat) = (None, None);
                return Err("no heartbeat: there is no such file".to_owned());
            }
            Err(error) => return Err(format!("no heartbeat: {error}")),
        };
        if self.mark.replace(look.mark) != Some(look.mark) {
            self.beat = Some(now);
        }
        if let Some(reason) = look.fails {
            return Err(if reason.is_empty() { "it says fail".to_owned() } else { reason });
        }
        match self.beat {
            Some(beat) if now.duration_since(beat) < self.within => Ok(()),
            Some(_) => Err(format!("no heartbeat for {}", humantime::format_duration(self.within))),
            None => Err("no heartbeat yet".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn look(touched: u64) -> io::Result<Look> {
        Ok(Look { mark: (SystemTime::UNIX_EPOCH + Duration::from_secs(touched), 0), fails: None })
    }

    fn known(touched: u64) -> Known {
        Known { within: TTL, mark: look(touched).ok().map(|look| look.mark), beat: None }
    }

    #[test]
    fn a_beat_counts_for_its_ttl_and_only_a_beat_that_was_seen() {
        let (mut known, begin) = (known(100), Instant::now());
        assert_eq!(known.judge(look(100), begin).unwrap_err(), "no heartbeat yet", "a file of yesterday");
        known.judge(look(200), begin).expect("touched");
        known.judge(look(200), begin + TTL - Duration::from_secs(1)).expect("within the TTL");
        assert_eq!(known.judge(look(200), begin + TTL).unwrap_err(), "no heartbeat for 30s");
        // A clock that was set back.
        known.judge(look(50), begin + TTL).expect("touched");
    }

    #[test]
    fn a_file_that_is_gone_or_says_fail_is_believed_at_once() {
        let (mut known, now) = (known(100), Instant::now());
        known.judge(look(200), now).expect("touched");
        let fails = Look { fails: Some("disk full".into()), ..look(201).unwrap() };
        assert_eq!(known.judge(Ok(fails), now).unwrap_err(), "disk full");
        known.judge(look(202), now).expect("well again");
        assert!(known.judge(Err(io::ErrorKind::NotFound.into()), now).unwrap_err().contains("no such file"));
        known.judge(look(202), now).expect("made again");
        let denied = known.judge(Err(io::ErrorKind::PermissionDenied.into()), now);
        assert!(denied.unwrap_err().contains("permission denied"));
    }

    #[tokio::test]
    async fn the_first_line_tells_of_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("beat");
        let heartbeat = Heartbeat::new(&file, TTL);
        for (text, says) in [
            ("", Ok(())),
            ("17", Ok(())),
            ("fail: disk full\nsince Monday", Err("disk full")),
            ("fail", Err("it says fail")),
            ("pass\nfail", Ok(())),
        ] {
            std::fs::write(&file, text).expect("a file");
            let found = heartbeat.clone().look().await;
            let expected = says.map_err(|reason| format!("{}: {reason}", file.display()));
            assert_eq!(found, expected, "{text:?}");
        }
        std::fs::remove_file(&file).expect("a file");
        heartbeat.look().await.expect_err("there is none");
    }
}

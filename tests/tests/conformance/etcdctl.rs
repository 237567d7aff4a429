//! etcd's own command line, of both versions, does its work on each etcd.

use std::process::Stdio;
use std::time::Duration;

use svc_tests::etcd::{Binary, Kind, TestEtcd, find};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::support::{LIMIT, next};

/// An etcdctl that talks to one etcd.
struct Ctl<'a> {
    binary: &'static Binary,
    etcd: &'a TestEtcd,
}

impl Ctl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary.etcdctl);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCDCTL_") {
                command.env_remove(name);
            }
        }
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.etcd.address()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it to its end; gives what it printed, line by line.
    async fn run(&self, arguments: &[&str]) -> Vec<String> {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &[&str], stdin: &str) -> Vec<String> {
        let (ok, out, err) = self.end_of(arguments, stdin).await;
        assert!(ok, "etcdctl {} {arguments:?} failed: {err}", self.binary.version);
        out.lines().map(str::to_owned).collect()
    }

    /// Runs it to its failure; gives what it complained about.
    async fn fails(&self, arguments: &[&str]) -> String {
        let (ok, out, err) = self.end_of(arguments, "").await;
        assert!(!ok, "etcdctl {} {arguments:?} did not fail: {out}", self.binary.version);
        err
    }

    async fn end_of(&self, arguments: &[&str], stdin: &str) -> (bool, String, String) {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("etcdctl starts");
        let mut input = child.stdin.take().expect("its stdin is a pipe");
        input.write_all(stdin.as_bytes()).await.expect("etcdctl reads its stdin");
        drop(input);
        let done =
            tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("etcdctl ends").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.success(), text(&done.stdout), text(&done.stderr))
    }
}

/// The etcdctls of this machine, each with a clean etcd.
async fn each(etcd: &TestEtcd, law: impl AsyncFn(Ctl<'_>)) {
    let mut found = 0;
    for binary in [Kind::Etcd34, Kind::Etcd35].into_iter().filter_map(find) {
        // One that is named by ETCD_BINS may have no etcdctl beside it.
        if !binary.etcdctl.exists() {
            continue;
        }
        found += 1;
        let mut client = etcd.client().await;
        client.delete("", Some(etcd_client::DeleteOptions::new().with_all_keys())).await.unwrap();
        law(Ctl { binary, etcd }).await;
    }
    let owed = std::env::var("CI").as_deref() == Ok("true");
    assert!(found == 2 || !owed, "no etcdctl of both versions here: run `make tools`");
    if found == 0 {
        println!("not tested: no etcdctl here; run `make tools`");
    }
}

laws! {
    async fn etcdctl_puts_gets_and_deletes(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            assert_eq!(ctl.run(&["put", "k/1", "one"]).await, ["OK"]);
            assert_eq!(ctl.run(&["put", "k/2", "two"]).await, ["OK"]);
            assert_eq!(ctl.run(&["put", "--prev-kv", "k/2", "zwei"]).await, ["OK", "k/2", "two"]);
            assert_eq!(ctl.run(&["get", "k/1"]).await, ["k/1", "one"]);
            assert_eq!(ctl.run(&["get", "--prefix", "k/"]).await, ["k/1", "one", "k/2", "zwei"]);
            let sorted = ["get", "--prefix", "k/", "--keys-only", "--sort-by=MODIFY", "--order=DESCEND"];
            assert_eq!(ctl.run(&sorted).await, ["k/2", "", "k/1", ""]);
            assert_eq!(ctl.run(&["get", "--prefix", "k/", "--limit=1", "--print-value-only"]).await, ["one"]);
            assert_eq!(ctl.run(&["del", "--prefix", "k/", "--prev-kv"]).await, ["2", "k/1", "one", "k/2", "zwei"]);
            assert_eq!(ctl.run(&["get", "--prefix", "k/"]).await, [""; 0]);
        })
        .await;
    }

    async fn etcdctl_watches(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            let mut watching = ctl.command(&["watch", "--prefix", "k/", "--prev-kv"]).spawn().unwrap();
            let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
            // It says nothing when it is ready: put until it is heard.
            let mut heard = None;
            while heard.is_none() {
                ctl.run(&["put", "k/1", "one"]).await;
                heard = tokio::time::timeout(Duration::from_secs(1), lines.next_line()).await.ok();
            }
            assert_eq!(heard.unwrap().unwrap().as_deref(), Some("PUT"));
            ctl.run(&["del", "k/1"]).await;
            let mut last = Vec::new();
            while last.last().is_none_or(|line| line != "DELETE") {
                let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a line in time");
                last.push(line.unwrap().expect("etcdctl goes on"));
            }
            for expected in ["k/1", "one", "k/1"] {
                let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a line in time");
                assert_eq!(line.unwrap().as_deref(), Some(expected), "the value before, then the key");
            }
            watching.kill().await.unwrap();
        })
        .await;
    }

    async fn etcdctl_grants_keeps_asks_and_revokes_leases(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            let granted = ctl.run(&["lease", "grant", "60"]).await;
            let words: Vec<&str> = granted[0].split(' ').collect();
            let ["lease", id, "granted", "with", "TTL(60s)"] = words[..] else { panic!("{granted:?}") };
            ctl.run(&["put", "--lease", id, "k", "v"]).await;
            let kept = ctl.run(&["lease", "keep-alive", "--once", id]).await;
            assert_eq!(kept, [format!("lease {id} keepalived with TTL(60)")]);
            let told = ctl.run(&["lease", "timetolive", "--keys", id]).await;
            assert!(told[0].starts_with(&format!("lease {id} granted with TTL(60s), remaining(")), "{told:?}");
            assert!(told[0].ends_with("attached keys([k])"), "{told:?}");
            assert_eq!(ctl.run(&["lease", "list"]).await, ["found 1 leases", id]);
            assert_eq!(ctl.run(&["lease", "revoke", id]).await, [format!("lease {id} revoked")]);
            assert_eq!(ctl.run(&["get", "k"]).await, [""; 0]);
            assert_eq!(ctl.run(&["lease", "timetolive", id]).await, [format!("lease {id} already expired")]);
            let again = ctl.fails(&["lease", "revoke", id]).await;
            assert!(again.contains("requested lease not found"), "{again}");
        })
        .await;
    }

    async fn etcdctl_transacts(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            let txn = "version(\"k\") = \"0\"\n\nput k one\nget k\n\nget k\n\n";
            assert_eq!(ctl.run_with(&["txn"], txn).await, ["SUCCESS", "", "OK", "", "k", "one"]);
            assert_eq!(ctl.run_with(&["txn"], txn).await, ["FAILURE", "", "k", "one"]);
            let duplicate = ctl.end_of(&["txn"], "\nput k one\nput k two\n\n\n").await;
            assert!(!duplicate.0 && duplicate.2.contains("duplicate key given in txn request"), "{duplicate:?}");
        })
        .await;
    }

    async fn etcdctl_compacts_and_is_told_of_what_is_gone(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            for value in ["1", "2", "3"] {
                ctl.run(&["put", "k", value]).await;
            }
            let mut client = etcd.client().await;
            let revision = client.get("k", None).await.unwrap().header().unwrap().revision();
            let (last, first) = (revision.to_string(), (revision - 2).to_string());
            assert_eq!(ctl.run(&["get", "k", "--rev", &first]).await, ["k", "1"]);
            assert_eq!(ctl.run(&["compaction", &last]).await, [format!("compacted revision {last}")]);
            let gone = ctl.fails(&["get", "k", "--rev", &first]).await;
            assert!(gone.contains("required revision has been compacted"), "{gone}");
            let twice = ctl.fails(&["compaction", &last]).await;
            assert!(twice.contains("required revision has been compacted"), "{twice}");
            let watch = ctl.fails(&["watch", "k", "--rev", &first]).await;
            assert!(watch.contains("required revision has been compacted"), "{watch}");
            assert_eq!(ctl.run(&["get", "k"]).await, ["k", "3"]);
        })
        .await;
    }

    async fn etcdctl_asks_for_health_status_and_members(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            // 3.4 tells on stderr.
            let health = ctl.end_of(&["endpoint", "health"], "").await;
            assert!(health.0 && (health.1 + &health.2).contains("is healthy"), "healthy");
            let status = ctl.run(&["endpoint", "status", "--write-out", "simple"]).await;
            assert!(status[0].contains(&etcd.address()) && status[0].contains(", 3."), "{status:?}");
            let members = ctl.run(&["member", "list"]).await;
            assert!(members.len() == 1 && members[0].contains(&etcd.url()), "{members:?}");
            assert_eq!(ctl.run(&["alarm", "list"]).await, [""; 0]);
        })
        .await;
    }

    async fn etcdctl_with_a_password_goes_on_where_none_is_needed(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            // It is told that authentication is not enabled, and goes on without.
            ctl.run(&["put", "k", "v"]).await;
            assert_eq!(ctl.run(&["--user", "root:secret", "get", "k"]).await, ["k", "v"]);
        })
        .await;
    }

    async fn etcdctl_takes_endpoints_with_a_scheme(etcd: TestEtcd) {
        let url = etcd.url();
        each(&etcd, async |ctl| {
            let at_url = ["--endpoints", url.as_str()];
            assert_eq!(ctl.run(&[&at_url[..], &["put", "k", "v"]].concat()).await, ["OK"]);
            let maintenance = [&at_url[..], &["endpoint", "status"]].concat();
            if etcd.kind() == Kind::Embedded && ctl.binary.version.starts_with("3.4.") {
                // It takes the whole URL for a host then, which HTTP/2 has no place for.
                assert!(ctl.fails(&maintenance).await.contains("PROTOCOL_ERROR"));
            } else {
                let status = ctl.run(&maintenance).await;
                assert!(status.iter().any(|line| line.starts_with(&url)), "{status:?}");
            }
        })
        .await;
    }

    async fn etcdctl_looks_after_it(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            ctl.run(&["put", "k", "v"]).await;
            let hash = ctl.run(&["endpoint", "hashkv"]).await;
            assert!(hash[0].starts_with(&etcd.address()), "{hash:?}");
            assert_eq!(ctl.run(&["endpoint", "hashkv"]).await, hash, "the same as long as nothing is written");
            let defragmented = ctl.run(&["defrag"]).await;
            assert!(defragmented[0].contains("Finished defragmenting etcd member"), "{defragmented:?}");
            assert_eq!(ctl.run(&["alarm", "disarm"]).await, [""; 0]);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("snapshot.db");
            let save = ["snapshot", "save", file.to_str().unwrap()];
            if etcd.kind() == Kind::Embedded {
                let refused = ctl.fails(&save).await;
                assert!(refused.contains("Snapshot is not supported; use a real etcd for it"), "{refused}");
            } else {
                ctl.run(&save).await;
            }
        })
        .await;
    }

    async fn etcdctl_makes_users_and_roles_and_enables_authentication(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            assert_eq!(ctl.run(&["user", "add", "ada:secret"]).await, ["User ada created"]);
            assert_eq!(ctl.run(&["role", "add", "k"]).await, ["Role k created"]);
            let grant = ["role", "grant-permission", "--prefix=true", "k", "readwrite", "k/"];
            assert_eq!(ctl.run(&grant).await, ["Role k updated"]);
            assert_eq!(ctl.run(&["user", "grant-role", "ada", "k"]).await, ["Role k is granted to user ada"]);
            let range = "\t[k/, k0) (prefix k/)";
            assert_eq!(ctl.run(&["role", "get", "k"]).await, ["Role k", "KV Read:", range, "KV Write:", range]);
            let nobody = ctl.fails(&["auth", "enable"]).await;
            assert!(nobody.contains("root user does not exist"), "{nobody}");
            ctl.run(&["user", "add", "root:secret"]).await;
            // It is told that root lacks its role, and grants it.
            let enabled = ctl.run(&["auth", "enable"]).await;
            assert_eq!(enabled.last().map(String::as_str), Some("Authentication Enabled"), "{enabled:?}");

            let none = ctl.fails(&["put", "k/1", "v"]).await;
            assert!(none.contains("user name is empty"), "{none}");
            let wrong = ctl.fails(&["--user", "ada:wrong", "put", "k/1", "v"]).await;
            assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");
            assert_eq!(ctl.run(&["--user", "ada:secret", "put", "k/1", "v"]).await, ["OK"]);
            assert_eq!(ctl.run(&["--user", "ada:secret", "get", "--prefix", "k/"]).await, ["k/1", "v"]);
            let other = ctl.fails(&["--user", "ada:secret", "get", "other"]).await;
            assert!(other.contains("permission denied"), "{other}");
            assert_eq!(ctl.run(&["--user", "ada:secret", "user", "get", "ada"]).await, ["User: ada", "Roles: k"]);

            let root = ["--user", "root:secret"];
            let as_root = async |arguments: &[&str]| ctl.run(&[&root, arguments].concat()).await;
            assert_eq!(as_root(&["user", "list"]).await, ["ada", "root"]);
            assert_eq!(as_root(&["role", "list"]).await, ["k", "root"]);
            let interactive = ["user", "passwd", "--interactive=false", "ada"];
            assert_eq!(ctl.run_with(&[&root[..], &interactive].concat(), "other\n").await, ["Password updated"]);
            ctl.run(&["--user", "ada:other", "get", "k/1"]).await;
            as_root(&["role", "revoke-permission", "--prefix=true", "k", "k/"]).await;
            assert!(ctl.fails(&["--user", "ada:other", "get", "k/1"]).await.contains("permission denied"));
            assert_eq!(as_root(&["user", "revoke-role", "ada", "k"]).await, ["Role k is revoked from user ada"]);
            assert_eq!(as_root(&["auth", "disable"]).await, ["Authentication Disabled"]);
            for user in ["ada", "root"] {
                assert_eq!(ctl.run(&["user", "delete", user]).await, [format!("User {user} deleted")]);
            }
            for role in ["k", "root"] {
                assert_eq!(ctl.run(&["role", "delete", role]).await, [format!("Role {role} deleted")]);
            }
        })
        .await;
    }

    /// What other clients are told goes through the same stream as what etcdctl does.
    async fn a_watch_hears_what_etcdctl_does(etcd: TestEtcd) {
        each(&etcd, async |ctl| {
            let mut stream = etcd.client().await.watch("k", None).await.unwrap();
            assert!(next(&mut stream).await.created());
            ctl.run(&["put", "k", "v"]).await;
            assert_eq!(next(&mut stream).await.events()[0].kv().unwrap().value(), b"v");
        })
        .await;
    }
}

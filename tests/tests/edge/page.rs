//! The page in a real, headless Chromium, by way of its ChromeDriver (W3C WebDriver).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use svc_tests::etcd::{Kind, TestEtcd};
use svc_tests::ports::free_port;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::{LIMIT, Program, ask_at, post, until_good};

/// What names an element in WebDriver's answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window; ends on drop.
struct Browser {
    address: String,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Browser {
    async fn start(chromium: &Path, chromedriver: &Path) -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let driver = Command::new(chromedriver)
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut browser = Browser {
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            _driver: driver,
            _profile: profile,
        };
        let data = format!("--user-data-dir={}", browser._profile.path().display());
        // As root, which CI is, Chromium runs only without its sandbox; small machines have little /dev/shm.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1100,800",
            &data,
        ];
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let session = browser.tell(Method::POST, "/session", &wanted).await;
        session["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    /// One command, with a body unless that is null; its value.
    async fn tell(&self, method: Method, path: &str, body: &Value) -> Value {
        let ask = ask_at(&self.address, method, path);
        let ask = match body {
            Value::Null => ask,
            body => ask.header("content-type", "application/json").body(body.to_string()),
        };
        let answer = ask.send().await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer.json()["value"].clone()
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.tell(Method::POST, &format!("/session/{}/{path}", self.session), body).await
    }

    async fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.command("element", &json!({ "using": "css selector", "value": selector })).await;
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/click"), &json!({})).await;
    }

    async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.command(&format!("element/{element}/clear"), &json!({})).await;
        self.command(&format!("element/{element}/value"), &json!({ "text": text })).await;
    }

    async fn text(&self, selector: &str) -> String {
        let script =
            "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''";
        let text = self.command("execute/sync", &json!({ "script": script, "args": [selector] })).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the element shows a text of which this holds.
    async fn shows(&self, selector: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let shown = async {
            loop {
                last = self.text(selector).await;
                if holds(&last) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(LIMIT, shown).await.is_ok();
        assert!(in_time, "{selector} shows {last:?}");
        last
    }
}

#[tokio::test]
async fn a_gift_is_sent_on_the_page_and_seen_to_arrive() {
    let (Some(chromium), Some(chromedriver)) = (program("chromium"), program("chromedriver")) else {
        eprintln!(
            "not tested: no chromium and chromedriver here; tests/tools/chromium.sh says what it takes"
        );
        return;
    };
    let etcd = TestEtcd::start_kind(Kind::Embedded).await.expect("it is in the process");
    let folder = tempfile::tempdir().expect("a folder");
    let database = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let start = |name: &str| {
        Program::start(name, &etcd.url(), &["--id", name, "--database", &database(&format!("{name}.db"))])
    };
    let edge = Program::start("edge", &etcd.url(), &[]);
    let (_balance, _gift) = (start("balance"), start("gift"));
    let coins = json!({ "operations": [{ "to_uid": 1, "coin": 1, "biz_id": "in" }] });
    until_good(|| post(&edge, "/v1/balance/BatchAddUserCoin", &coins)).await;
    until_good(|| ask_at(&edge.address, Method::GET, "/v1/gift/ListGifts")).await;

    let browser = Browser::start(&chromium, &chromedriver).await;
    browser.open(&format!("http://{}/", edge.address)).await;
    browser.shows("#watching", |text| text == "Live").await;
    browser.shows("#purse", |text| text == "1 coin").await;

    // Somebody who has too little is told so.
    browser.shows("#gifts", |text| !text.is_empty()).await;
    browser.click("#go").await;
    let refused = browser.shows("#sent", |text| !text.is_empty() && text != "Sending…").await;
    assert!(refused.contains("coin"), "{refused}");
    assert_eq!(browser.text("#arrived").await, "");

    browser.click("#add").await;
    browser.shows("#purse", |text| text == "1,001 coins").await;
    browser.click("#go").await;
    browser.shows("#sent", |text| text == "Sent to 2 of 2.").await;
    browser.shows("#arrived", |text| text.contains("from user 1")).await;
    browser.shows("#earned", |text| text.ends_with("coins") && text != "0 coins").await;
    browser.shows("#receipts", |text| text.matches("received").count() == 2).await;

    // The gifts of another user, from the beginning.
    browser.fill("#watched", "3\t").await;
    browser.shows("#arrived", |text| text.contains("from user 1")).await;
    if let Some(file) = std::env::var_os("SVC_SCREENSHOT") {
        let path = format!("/session/{}/screenshot", browser.session);
        let picture = browser.tell(Method::GET, &path, &Value::Null).await;
        std::fs::write(file, picture.as_str().expect("a picture, in base64")).expect("it is written");
    }
    let path = format!("/session/{}", browser.session);
    browser.tell(Method::DELETE, &path, &Value::Null).await;
}

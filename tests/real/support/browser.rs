//! A browser without a screen: `chromium`, led through its protocol for developers (`--remote-debugging-pipe`).

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// On a busy machine, its start alone takes many seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page open.
pub struct Browser {
    process: Child,
    /// Its profile, and the pipes to it.
    _dir: TempDir,
    commands: File,
    answers: Receiver<Value>,
    next_id: u64,
    session: Option<String>,
    /// What it told without being asked.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["commands", "answers"] {
            assert!(Command::new("mkfifo").arg(path(name)).status().unwrap().success());
        }
        // Open on both ends, a pipe lets nobody wait.
        let open = |name: &str| File::options().read(true).write(true).open(path(name)).unwrap();
        let (commands, answers) = (open("commands"), open("answers"));
        let process = Command::new("bash")
            .args(["-c", "exec chromium \"$@\" 3<\"$PIPES/commands\" 4>\"$PIPES/answers\"", "bash"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-extensions", "--disable-background-networking"])
            .args(["--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", path("profile").display()))
            .env("PIPES", dir.path())
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            process,
            _dir: dir,
            commands,
            answers: receiver,
            next_id: 0,
            session: None,
            events: vec![],
        };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", &attach);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Log", "Runtime", "Network"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a file as a screen of this width shows it; what the browser had to complain about, or was asked to fetch or to run.
    pub fn open(&mut self, file: &Path, width: u32, scheme: &str) -> Vec<Value> {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.ask("Emulation.setDeviceMetricsOverride", &metrics);
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", &feature);
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.ask("Page.navigate", &json!({"url": url}));
        let end = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive(end);
            self.events.push(event);
        }
        // What comes behind the page's load comes before this answer.
        self.evaluate("new Promise(done => setTimeout(done, 50))");
        let is_odd = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Log.entryAdded"
            | "Runtime.consoleAPICalled"
            | "Runtime.exceptionThrown"
            | "Page.javascriptDialogOpening"
            | "Network.loadingFailed" => true,
            "Network.requestWillBeSent" => event["params"]["request"]["url"] != url,
            _ => false,
        };
        self.events.iter().filter(is_odd).cloned().collect()
    }

    /// What an expression is worth on the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", &asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let answer =
            self.ask("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// The page on paper, as PDF.
    pub fn paper(&mut self) -> Vec<u8> {
        let answer = self.ask("Page.printToPDF", &json!({"preferCSSPageSize": true}));
        BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.next_id += 1;
        let mut command = json!({"id": self.next_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        let mut message = serde_json::to_vec(&command).unwrap();
        message.push(0);
        self.commands.write_all(&message).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.receive(end);
            if answer["id"] == self.next_id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    #[track_caller]
    fn receive(&mut self, end: Instant) -> Value {
        let left = end.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).unwrap_or_else(|_| {
            let ended = self.process.try_wait();
            panic!("chromium does not answer (Debian package chromium): {ended:?}")
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

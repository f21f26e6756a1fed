//! A browser without a screen, spoken to through a pipe.
//! <https://chromedevtools.github.io/devtools-protocol/>

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

/// For one answer, or one event: this machine may be slow, and do something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// It is the pipe's ends that it takes as files 3 and 4, which a shell hands over.
const BY_PIPE: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// It never asks anything of the network: no name is found, and nothing of its own goes out.
const OFFLINE: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",
];

pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
    events: Vec<Value>,
    _home: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", BY_PIPE])
            .arg(program)
            .args(OFFLINE)
            .arg(format!("--user-data-dir={}", home.path().display()))
            .arg("about:blank")
            .env("HOME", home.path())
            .env("XDG_CACHE_HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(home.path().join("said"))?)
            .spawn()
            .context("cannot start a shell")?;
        let to = child.stdin.take().context("no pipe")?;
        let answers = child.stdout.take().context("no pipe")?;
        let (tell, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { break };
                if tell.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self { child, to, from, last: 0, events: Vec::new(), _home: home };
        let version = browser.call(None, "Browser.getVersion", json!({}));
        let version = version.with_context(|| {
            let said = std::fs::read_to_string(browser._home.path().join("said"));
            format!("{} does not answer: {}", program.display(), said.unwrap_or_default())
        })?;
        eprintln!("looked at by {}", version["product"]);
        Ok(browser)
    }

    /// A window of its own; what is asked of it names it.
    pub(crate) fn window(&mut self) -> Result<String> {
        let made = self.call(None, "Target.createTarget", json!({"url": "about:blank"}))?;
        let target = json!({"targetId": made["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", target)?;
        Ok(attached["sessionId"].as_str().context("no window")?.to_owned())
    }

    pub(crate) fn call(
        &mut self,
        window: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value> {
        let id = self.tell(window, method, params)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.hear(until).with_context(|| method.to_owned())?;
            if message["id"] != id {
                continue;
            }
            if let Some(error) = message["error"]["message"].as_str() {
                bail!("{method}: {error}");
            }
            return Ok(message["result"].clone());
        }
    }

    /// Without waiting for an answer.
    fn tell(&mut self, window: Option<&str>, method: &str, params: Value) -> Result<u64> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(window) = window {
            message["sessionId"] = window.into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("the browser is gone")?;
        self.to.flush()?;
        Ok(self.last)
    }

    /// The next message. Events are kept; a dialog, which stops all else, is closed.
    fn hear(&mut self, until: Instant) -> Result<Value> {
        let message = match self.from.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => bail!("nothing came within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the browser ended"),
        };
        if message["method"] == "Page.javascriptDialogOpening" {
            let window = message["sessionId"].as_str().map(str::to_owned);
            self.tell(window.as_deref(), "Page.handleJavaScriptDialog", json!({"accept": false}))?;
        }
        if message["method"].is_string() {
            self.events.push(message.clone());
        }
        Ok(message)
    }

    /// Waits for such an event; those before it are kept.
    pub(crate) fn wait(&mut self, window: &str, is_it: impl Fn(&Value) -> bool) -> Result<()> {
        let of = |event: &Value| event["sessionId"] == window && is_it(event);
        if self.events.iter().any(of) {
            return Ok(());
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.hear(until)?;
            if of(&message) {
                return Ok(());
            }
        }
    }

    /// All that happened since that was last asked, in this window.
    pub(crate) fn take_events(&mut self, window: &str) -> Vec<Value> {
        let events = std::mem::take(&mut self.events);
        events.into_iter().filter(|event| event["sessionId"] == window).collect()
    }

    /// What a piece of script comes to, also where the page's own are not run.
    pub(crate) fn evaluate(&mut self, window: &str, script: &str) -> Result<Value> {
        let params = json!({"expression": script, "returnByValue": true});
        let answer = self.call(Some(window), "Runtime.evaluate", params)?;
        ensure!(answer["exceptionDetails"].is_null(), "{}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    pub(crate) fn picture(&mut self, window: &str) -> Result<Vec<u8>> {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.call(Some(window), "Page.captureScreenshot", params)?;
        let text = taken["data"].as_str().context("no picture")?;
        bytes(text).ok_or_else(|| anyhow!("the picture is no base64"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.tell(None, "Browser.close", json!({}));
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From base64.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        Some(match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut kept) = (0_u32, 0_u32);
    for c in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(c)?);
        kept += 6;
        if kept >= 8 {
            kept -= 8;
            bytes.push(u8::try_from(bits >> kept & 0xff).ok()?);
        }
    }
    Some(bytes)
}

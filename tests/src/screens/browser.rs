//! Debian's Chromium without a window, told what to do by the DevTools protocol over a pipe.
//!
//! Its `--screenshot` can't be used: it takes the picture when a page has loaded, or after a time, and the status page has
//! loaded before it has asked the agent anything. Here a picture is taken when the page itself shows what was waited for.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::{PATIENCE, wait_until};

/// Chromium speaks on descriptors 3 and 4. No name but 127.0.0.1 is looked up: it would ask its maker for news.
const START: &str = "exec chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
    --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --remote-debugging-pipe --user-data-dir=\"$0\" \
    about:blank 3<&0 4>&1 </dev/null >/dev/null";

/// A screen, in CSS pixels.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// How wide.
    pub width: u32,
    /// How high.
    pub height: u32,
    /// A telephone: it lays pages out as one.
    pub is_phone: bool,
    /// The person prefers dark pages.
    pub is_dark: bool,
}

/// One with one page; ends with it.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    session: String,
    /// Its profile, and what it logs.
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    pub fn start() -> Result<Browser> {
        let folder = tempfile::tempdir()?;
        let log = File::create(folder.path().join("log"))?;
        let mut child = Command::new("sh")
            .args(["-c", START])
            .arg(folder.path().join("profile"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting Chromium")?;
        let to = child.stdin.take().context("no pipe to Chromium")?;
        let answers = child.stdout.take().context("no pipe from Chromium")?;
        let (sender, from) = channel();
        // A thread, for a read of a pipe has no deadline. It ends with Chromium.
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                if let Ok(message) = serde_json::from_slice(&message)
                    && sender.send(message).is_err()
                {
                    return;
                }
            }
        });
        let mut browser = Browser { child, to, from, calls: 0, session: String::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = browser
            .call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        Ok(browser)
    }

    /// Asks for a page. It is there when [`Browser::wait_for`] says so.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({"url": url}))?;
        ensure!(answer["errorText"].is_null(), "{url}: {answer}");
        Ok(())
    }

    /// Shows the page on another screen.
    pub fn show_on(&mut self, screen: Screen) -> Result<()> {
        let Screen { width, height, is_phone, is_dark } = screen;
        // A phone has more pixels than CSS counts. Here it has not: pictures are kept in the repository.
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// The value of an expression in the page.
    pub fn value_of(&mut self, expression: &str) -> Result<Value> {
        let answer =
            self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}))?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until a condition holds in the page.
    pub fn wait_for(&mut self, condition: &str) -> Result<()> {
        wait_until(condition, PATIENCE, || {
            ensure!(self.value_of(condition)? == true, "{}", self.value_of("document.body.innerText")?);
            Ok(())
        })
    }

    /// What is on the screen, as PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let text = answer["data"].as_str().context("no picture")?;
        Ok(STANDARD.decode(text)?)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let mut order = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            order["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(&[order.to_string().as_bytes(), b"\0"].concat()).context("Chromium has ended")?;
        loop {
            let mut answer = self
                .from
                .recv_timeout(PATIENCE)
                .with_context(|| format!("Chromium does not answer {method}"))?;
            // What is no answer is news of the page.
            if answer["id"] == self.calls {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
        }
    }
}

impl Drop for Browser {
    /// Its processes end when it is told to; killed, it would leave some.
    fn drop(&mut self) {
        self.session.clear();
        let _ = self.call("Browser.close", json!({}));
        let ended = wait_until("Chromium to end", PATIENCE, || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

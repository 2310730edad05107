//! Headless Chromium, driven through chromedriver by WebDriver: JSON over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Process, TempDir, eventually, reserve};

/// From nothing to a window, on a machine that does something else as well.
const STARTS: Duration = Duration::from_secs(60);
/// For one command.
const ANSWERS: Duration = Duration::from_secs(60);
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    _process: Process,
}

impl Browser {
    #[track_caller]
    pub(crate) fn start(dir: &TempDir) -> Browser {
        let [driver] = reserve(1)[..] else { panic!("one port was asked for") };
        assert!(
            Command::new("chromedriver").arg("--version").output().is_ok(),
            "no chromedriver here: ops/packages chromium chromium-driver"
        );
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", driver.port())).current_dir(dir.path());
        let process = Process::start("chromedriver", command, &dir.path().join("chromedriver.log"));
        eventually(STARTS, "chromedriver to listen", || TcpStream::connect(driver));
        let mut browser = Browser { driver, session: String::new(), _process: process };
        let profile = dir.path().join("profile");
        let arguments = [
            "--headless=new",
            // Tests run as root in containers, where Chromium's sandbox does not start.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let started = browser.send("POST", "/session", &wanted);
        browser.session = started["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// What `return ...` in the page gives.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? '<not there>'");
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// As a person does it: scrolls there; it must be seen, and nothing may lie above it.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({selector:?})?.scrollIntoView({{ block: 'center' }})"));
        let element = self.find(selector);
        self.command(&format!("element/{element}/click"), &json!({}));
    }

    /// Replaces what an input has.
    #[track_caller]
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.command(&format!("element/{element}/clear"), &json!({}));
        self.command(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses one key, wherever the focus is.
    #[track_caller]
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.command("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// Shows the page as a screen of this size has it, in CSS pixels, in one of the two colour schemes.
    #[track_caller]
    pub(crate) fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Saves what is seen as PNG, and says how many colours it has.
    #[track_caller]
    pub(crate) fn screenshot(&self, file: &Path) -> u64 {
        let picture = self.get("screenshot");
        let text = picture.as_str().expect("a picture");
        std::fs::write(file, from_base64(text)).expect("writes the picture");
        self.colours(text)
    }

    /// Everything that the page or the browser wrote to the console so far that is an error.
    #[track_caller]
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().expect("a log").iter();
        entries.filter(|entry| entry["level"] == "SEVERE").map(|entry| entry["message"].to_string()).collect()
    }

    /// Decodes a PNG in an empty page beside: the console's own does not load pictures from elsewhere.
    #[track_caller]
    fn colours(&self, png: &str) -> u64 {
        let own = self.get("window");
        let beside = self.command("window/new", &json!({ "type": "tab" }))["handle"].clone();
        self.command("window", &json!({ "handle": beside }));
        let script = "const [png, done] = arguments; const picture = new Image();
            picture.onload = () => {
              const canvas = document.createElement('canvas');
              [canvas.width, canvas.height] = [picture.width, picture.height];
              const pen = canvas.getContext('2d');
              pen.drawImage(picture, 0, 0);
              const pixels = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
              done(new Set(pixels).size);
            };
            picture.onerror = () => done(0);
            picture.src = 'data:image/png;base64,' + png;";
        let colours = self.command("execute/async", &json!({ "script": script, "args": [png] }));
        self.send("DELETE", &format!("/session/{}/window", self.session), &Value::Null);
        self.command("window", &json!({ "handle": own }));
        colours.as_u64().expect("a number of colours")
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: Value) {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    #[track_caller]
    fn find(&self, selector: &str) -> String {
        let found = self.command("element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no {selector}: {found}")).to_owned()
    }

    #[track_caller]
    fn get(&self, what: &str) -> Value {
        self.send("GET", &format!("/session/{}/{what}", self.session), &Value::Null)
    }

    #[track_caller]
    fn command(&self, what: &str, parameters: &Value) -> Value {
        self.send("POST", &format!("/session/{}/{what}", self.session), parameters)
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        match exchange(self.driver, method, path, body) {
            Ok(mut answer) if answer["value"]["error"].is_null() => answer["value"].take(),
            Ok(answer) => panic!("{method} {path}: {}", answer["value"]["message"]),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session; a driver that is killed would leave it behind. When the driver is gone already,
        // nobody can be told, and the test has failed by that.
        exchange(self.driver, "DELETE", &format!("/session/{}", self.session), &Value::Null).ok();
    }
}

fn exchange(driver: SocketAddr, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(driver)?;
    stream.set_read_timeout(Some(ANSWERS))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Type: application/json\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        line.clear();
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    serde_json::from_slice(&answer).map_err(std::io::Error::other)
}

/// RFC 4648, of a text that is known to be that.
fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_usize, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte)) {
        held = held << 6 & 0xFFFF | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xFF).expect("eight bits"));
        }
    }
    bytes
}

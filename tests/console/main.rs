//! The console in a real browser: Debian's Chromium, headless, over a cluster of processes under load. What the page shows is
//! compared with what the nodes say, and what it orders is looked for there. Pictures for a person: `target/console/*.png`.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod orders;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use admin_api::ReplayChange;
use browser::Browser;
use rustix::process::Signal;
use testkit::{Cluster, Feed, Feeding, Fleet, Keep, Process, Sink, TempDir, eventually, http, reserve};

/// On a machine that does something else as well.
const SOON: Duration = Duration::from_secs(30);
/// Until a backlog has grown, or is gone.
const LONG: Duration = Duration::from_secs(90);
/// Points a second: little, for two cores that also run a browser and eight processes.
const LOAD: u64 = 2_000;
/// A picture of text, boxes and lines has hundreds; a blank page has one or two.
const COLOURS_MIN: u64 = 60;
const RULE: &str = "[[rule]]\nname = \"load\"\nglob = \"load.**\"\noutput = \"all.load.{function}\"\n\
    interval = \"1s\"\ngrace = \"0s\"\nfunctions = [\"sum\", \"count\"]\nto = [\"carbon\"]\n";
/// What cannot be delivered is spilled soon.
const REPLAY: &str = "[replay]\nrate = \"50k/s\"\nadaptive = false\n[send]\nack_timeout = \"1s\"\nbatch = \"16KiB\"\n";

const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// Everything that a scene needs; dropped, all of it ends.
struct Stage {
    browser: Browser,
    console: Process,
    fleet: Fleet,
    _feeding: Feeding,
    _sink: Sink,
    _dir: TempDir,
}

impl Stage {
    #[track_caller]
    fn set() -> Stage {
        let dir = TempDir::new("console-browser");
        let sink = Sink::start(Keep::Count);
        let cluster = Cluster::new(2, 2, 2)
            .store("carbon", &[sink.address()])
            .route_all(&["aggregate", "carbon"])
            .with(RULE)
            .with(REPLAY);
        let fleet = Fleet::new("console", cluster, support::program).up();
        let feeding = Feed::new(fleet.cluster.graphite(), LOAD).start();
        let [listen] = reserve(1)[..] else { panic!("one port was asked for") };
        let mut command = Command::new(support::spillway());
        command.arg("--config").arg(fleet.dir().join("cluster.toml")).arg("console");
        // With a token, though the nodes ask for none, the console has a key.
        let token = dir.path().join("token");
        File::options().write(true).create_new(true).mode(0o600).open(&token).expect("creates");
        std::fs::write(&token, "may-do-anything-AbCd0123456789\n").expect("writes");
        command.args(["--listen", &listen.to_string(), "--token-file"]).arg(&token);
        let console = Process::start("console", command, &dir.path().join("console.log"));
        eventually(SOON, "the console to answer", || http::get(listen, "/"));
        let url = eventually(SOON, "the console's address", || {
            let said = console.log_text();
            let url = said.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
            url.filter(|_| said.contains("(Ctrl-C")).ok_or(said)
        });
        assert!(url.starts_with(&format!("http://{listen}/#key=")), "{url}");
        let browser = Browser::start(&dir);
        browser.screen(1280, 800, "light");
        browser.open(&format!("http://{listen}/"));
        eventually(SOON, "the refusal without the key", || {
            let banner = browser.text("#banner");
            when(banner.contains("open the whole address"), banner)
        });
        // Beside it, as in another tab: the same address with something else behind # would be the same page.
        browser.open("about:blank");
        let refused = browser.errors();
        assert!(!refused.is_empty() && refused.iter().all(|error| error.contains("401")), "{refused:?}");
        browser.open(&url);
        assert_eq!(browser.run("return location.href"), format!("http://{listen}/"), "the key is out of sight");
        Stage { browser, console, fleet, _feeding: feeding, _sink: sink, _dir: dir }
    }

    /// The rate that stands on an arrow; zero where none is known.
    #[track_caller]
    fn rate_on(&self, arrow: &str) -> u64 {
        let script = format!("return document.querySelector('[data-edge={arrow}]')?.dataset.rate ?? ''");
        self.browser.run(&script).as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The verdicts as they stand in the list, with their nodes.
    #[track_caller]
    fn verdicts(&self) -> Vec<(String, String)> {
        let script =
            "return [...document.querySelectorAll('#rows tr')].map((row) => [row.dataset.node, row.dataset.verdict])";
        serde_json::from_value(self.browser.run(script)).expect("pairs")
    }

    #[track_caller]
    fn shot(&self, name: &str) {
        let file = pictures().join(format!("{name}.png"));
        let colours = self.browser.screenshot(&file);
        assert!(colours >= COLOURS_MIN, "{} has {colours} colours", file.display());
    }

    /// Waits until the dialog says what an order would do, with these words in it, and may be confirmed.
    #[track_caller]
    fn previewed(&self, words: &str) -> String {
        eventually(SOON, "the preview", || {
            let ready = self
                .browser
                .run("return document.getElementById('order').open && !document.getElementById('send').disabled");
            let said = self.browser.text("#order-lines");
            when(ready == true && said.contains(words), &said).map(|()| said)
        })
    }

    /// As a screen of this size has it.
    #[track_caller]
    fn screen(&self, width: u32, height: u32, scheme: &str) {
        self.browser.screen(width, height, scheme);
        // The size reaches the page with the next frame.
        eventually(SOON, "the screen's size", || {
            let inner = self.browser.run("return [innerWidth, innerHeight]");
            when(inner == serde_json::json!([width, height]), inner)
        });
    }

    /// Nothing may stand beside the screen: a phone would have to scroll sideways.
    #[track_caller]
    fn fits(&self, name: &str) {
        let wide = self.browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{name}: {wide} pixels too wide");
    }
}

fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("console");
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    folder
}

fn when(holds: bool, seen: impl std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{seen:?}")) }
}

#[test]
fn an_operator_sees_the_cluster_and_steers_replay_from_the_page() {
    let mut stage = Stage::set();
    sees_the_load(&stage);
    changes_the_rate(&stage);
    pauses_by_keys(&stage);
    orders::switches_all_layers(&stage);
    orders::drains_a_node_and_lets_it_in_again(&stage);
    sees_a_killed_node_first(&mut stage);
    sees_the_spill_and_the_replay(&mut stage);
    assert_eq!(stage.browser.errors(), Vec::<String>::new(), "in the browser's console");
    hears_of_the_console_s_own_end(stage);
}

fn sees_the_load(stage: &Stage) {
    eventually(SOON, "every node to be ready on the page", || {
        let verdicts = stage.verdicts();
        when(verdicts.len() == 7 && verdicts.iter().all(|(_, verdict)| verdict == "ready"), verdicts)
    });
    eventually(SOON, "a rate on every arrow that has one in calm weather", || {
        let arrows = ["clients_relay", "relay_partial", "relay_stores", "partial_final", "final_stores"];
        let rates = arrows.map(|arrow| stage.rate_on(arrow));
        // What comes in is known; what goes on comes in lumps, and aggregates are few.
        when((LOAD / 2..=LOAD * 2).contains(&rates[0]) && rates.iter().all(|rate| *rate > 0), rates)
    });
    // A few seconds of history, so that there is something to see in the charts.
    eventually(SOON, "history", || {
        let long = stage.browser.run("return state.history.age_ms.length");
        when(long.as_u64().is_some_and(|long| long >= 12), long)
    });
    assert!(!stage.browser.run("return !document.getElementById('banner').hidden").as_bool().unwrap_or(true));
    let screens = [("light", 1280, 800, "light"), ("dark", 1280, 800, "dark"), ("phone", 390, 844, "light")];
    for (name, width, height, scheme) in screens.into_iter().chain([("phone-whole-dark", 390, 2400, "dark")]) {
        stage.screen(width, height, scheme);
        stage.fits(name);
        stage.shot(name);
    }
    stage.browser.screen(1280, 800, "light");
    stage.browser.press("t");
    stage.browser.press("t");
    assert_eq!(stage.browser.text("#theme span"), "Dark", "the switch goes through the colours by a key");
    stage.browser.press("t");
    stage.browser.press("?");
    assert_eq!(stage.browser.run("return document.getElementById('keys').open"), true, "the keys are shown");
    stage.browser.press(ESCAPE);
}

fn changes_the_rate(stage: &Stage) {
    let replayer = stage.fleet.api("replayer-1");
    let rate = || replayer.replay().map(|status| status.settings.rate);
    stage.browser.fill("#rate", "soon");
    stage.browser.click("#set-rate");
    eventually(SOON, "the refusal", || {
        let said = stage.browser.text("#rate-wrong");
        when(said.contains("is no rate"), said)
    });
    // The browser itself writes each refused request down.
    let refused = stage.browser.errors();
    assert!(refused.len() == 1 && refused[0].contains("400"), "{refused:?}");

    stage.browser.fill("#rate", "12345/s");
    stage.browser.click("#set-rate");
    stage.previewed("replayer-1: 50000/s -> 12345/s");
    assert_eq!(stage.browser.text("#order-command"), "spillway replay rate 12345/s");
    assert_eq!(rate(), Ok(50_000), "a preview changes nothing");
    stage.shot("preview");
    stage.browser.click("#send");
    eventually(SOON, "the new rate at the node", || rate().and_then(|rate| when(rate == 12_345, rate)));
    eventually(SOON, "the answers on the page", || {
        let said = stage.browser.text("#order-lines");
        when(said.contains("replayer-1: up to 12345/s") && said.contains("final-2"), said)
    });
    stage.browser.click("#cancel");
    let by = replayer.replay().expect("answers").settings.changed_by;
    assert!(by.ends_with("(console)"), "{by}");
    eventually(SOON, "the change among the changes", || {
        let changes = stage.browser.text("#audit");
        when(changes.contains("rate") && changes.contains("12.3k/s"), changes)
    });
    // Whatever others call themselves is text.
    let by = "<b id=evil>eve</b><img src=x onerror=\"document.title='evil'\">".to_owned();
    let change = ReplayChange { rate: Some(12_346), by: by.clone(), ..ReplayChange::default() };
    replayer.change_replay(&change).expect("takes it");
    eventually(SOON, "the name as it is", || {
        let changes = stage.browser.text("#audit");
        when(changes.contains(&by), changes)
    });
    assert_eq!(stage.browser.run("return document.querySelector('#evil, img[src=x]')"), serde_json::Value::Null);
}

fn pauses_by_keys(stage: &Stage) {
    let replayer = stage.fleet.api("replayer-1");
    let paused = || replayer.replay().map(|status| status.settings.paused);
    let open = || stage.browser.run("return document.getElementById('order').open");
    let preview = |key: &str| {
        stage.browser.press(key);
        stage.previewed("replayer-1");
    };
    preview("p");
    stage.browser.press(ESCAPE);
    assert_eq!((open(), paused()), (false.into(), Ok(false)), "Esc sends nothing");
    preview("p");
    stage.browser.press(ENTER);
    eventually(SOON, "the pause at the node", || paused().and_then(|paused| when(paused, paused)));
    eventually(SOON, "the answer", || {
        let said = stage.browser.text("#order-lines");
        when(said.contains("replayer-1: paused"), said)
    });
    stage.browser.press(ESCAPE);
    eventually(SOON, "the word on the page", || {
        let button = stage.browser.text("#pause");
        when(button == "Resume replay", button)
    });
}

fn sees_a_killed_node_first(stage: &mut Stage) {
    stage.fleet.kill("partial-2");
    eventually(SOON, "the killed node first", || {
        let verdicts = stage.verdicts();
        when(verdicts.first() == Some(&("partial-2".to_owned(), "no answer".to_owned())), verdicts)
    });
    eventually(SOON, "the banner", || {
        let banner = stage.browser.text("#banner");
        when(banner.contains("1 node does not answer: partial-2"), banner)
    });
    stage.shot("killed");
    orders::hears_before_an_order_who_will_not_answer(stage);
    stage.screen(390, 844, "dark");
    stage.fits("phone-killed");
    stage.shot("phone-killed");
}

/// Without a partial node the relay spills; back, and let go on from the page, the replayer brings all of it.
fn sees_the_spill_and_the_replay(stage: &mut Stage) {
    stage.browser.screen(1280, 800, "light");
    stage.fleet.kill("partial-1");
    eventually(LONG, "points on the way into the spill", || {
        let rate = stage.rate_on("relay_spill");
        when(rate > 0, rate)
    });
    eventually(LONG, "points that wait", || {
        let waiting = stage.browser.text("[data-box=spill]");
        when(waiting.contains("points wait"), waiting)
    });
    eventually(LONG, "enough of them to see their replay", || {
        let waiting = stage.browser.run("return state.history.pending.at(-1)");
        when(waiting.as_u64().is_some_and(|points| points > 10 * LOAD), waiting)
    });
    stage.shot("spilling");
    stage.fleet.restart("partial-1");
    stage.browser.press("p");
    stage.previewed("replayer-1: goes on at up to");
    stage.browser.press(ENTER);
    eventually(LONG, "a rate on the arrow of the replay", || {
        let rate = stage.rate_on("replay_partial");
        when(rate > 0, rate)
    });
    stage.browser.press(ESCAPE);
    eventually(LONG, "an empty spill", || {
        let waiting = stage.browser.text("[data-box=spill]");
        when(waiting.contains("empty"), waiting)
    });
    // A whole page, charts and changes with it.
    stage.screen(1280, 1500, "light");
    stage.shot("replayed");
}

fn hears_of_the_console_s_own_end(stage: Stage) {
    let Stage { browser, mut console, .. } = stage;
    console.signal(Signal::TERM);
    let status = console.wait_end(SOON);
    assert!(status.success(), "{status}: {}", console.log_text());
    eventually(SOON, "the page to say that it is old", || {
        let banner = browser.text("#banner");
        when(banner.contains("The console does not answer"), banner)
    });
}

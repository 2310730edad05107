//! Keys, and what they lead to. An order goes out only after its preview was seen and confirmed.

use crate::watch::{Model, Order};
use engine::rate;

/// A key, as far as anything here listens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
}

/// Where the operator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialogue {
    /// Looking around.
    Looking,
    /// Typing a rate; why the last one was none.
    Typing { text: String, wrong: Option<String> },
    /// Looking at what an order would do.
    Confirming { order: Order, preview: Vec<String> },
    /// It was sent.
    Sent { order: Order },
    /// What came back, a line a node.
    Told { lines: Vec<String> },
}

/// What the loop has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    Send(Order),
}

/// No rate has more characters.
const TEXT_MAX: usize = 24;

impl Dialogue {
    /// Takes one key.
    pub(super) fn press(self, key: Key, model: &mut Model) -> (Dialogue, Step) {
        match self {
            Dialogue::Looking | Dialogue::Told { .. } => looking(key, model),
            Dialogue::Typing { text, .. } => (typing(text, key, model), Step::Stay),
            Dialogue::Confirming { order, preview } => match key {
                Key::Char('y' | 'Y') | Key::Enter => (Dialogue::Sent { order }, Step::Send(order)),
                Key::Char('n' | 'N' | 'q') | Key::Escape => (Dialogue::Looking, Step::Stay),
                Key::Char(_) | Key::Backspace | Key::Up | Key::Down => {
                    (Dialogue::Confirming { order, preview }, Step::Stay)
                }
            },
            // An answer has its deadline; until then only leaving is possible, so that nothing is sent twice.
            Dialogue::Sent { order } => match key {
                Key::Char('q') => (Dialogue::Sent { order }, Step::Quit),
                Key::Char(_) | Key::Enter | Key::Escape | Key::Backspace | Key::Up | Key::Down => {
                    (Dialogue::Sent { order }, Step::Stay)
                }
            },
        }
    }

    /// The answers to what was sent.
    pub(super) fn told(self, lines: Vec<String>) -> Dialogue {
        match self {
            Dialogue::Sent { .. } => Dialogue::Told { lines },
            other @ (Dialogue::Looking
            | Dialogue::Typing { .. }
            | Dialogue::Confirming { .. }
            | Dialogue::Told { .. }) => other,
        }
    }
}

fn looking(key: Key, model: &mut Model) -> (Dialogue, Step) {
    let confirm = |order: Order, model: &Model| Dialogue::Confirming { order, preview: order.preview(model) };
    let next = match key {
        Key::Char('q' | 'Q') => return (Dialogue::Looking, Step::Quit),
        Key::Up | Key::Char('k') => {
            model.select(false);
            Dialogue::Looking
        }
        Key::Down | Key::Char('j') => {
            model.select(true);
            Dialogue::Looking
        }
        Key::Char('r') => Dialogue::Typing { text: String::new(), wrong: None },
        Key::Char('p') => {
            let all_paused = model.replays().all(|(_, replay)| replay.settings.paused);
            let any = model.replays().next().is_some();
            confirm(if any && all_paused { Order::Resume } else { Order::Pause }, model)
        }
        Key::Char(_) | Key::Enter | Key::Escape | Key::Backspace => Dialogue::Looking,
    };
    (next, Step::Stay)
}

fn typing(mut text: String, key: Key, model: &Model) -> Dialogue {
    match key {
        Key::Escape => return Dialogue::Looking,
        Key::Backspace => {
            text.pop();
        }
        Key::Char(c) if text.chars().count() < TEXT_MAX => text.push(c),
        Key::Char(_) | Key::Up | Key::Down => {}
        Key::Enter => {
            return match rate::parse(&text) {
                Ok(points) => {
                    let order = Order::Rate(points);
                    Dialogue::Confirming { order, preview: order.preview(model) }
                }
                Err(wrong) => Dialogue::Typing { text, wrong: Some(wrong.to_string()) },
            };
        }
    }
    Dialogue::Typing { text, wrong: None }
}

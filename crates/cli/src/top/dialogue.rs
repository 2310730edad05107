//! Keys, and what they lead to. An order goes out only after its preview was seen and confirmed.

use engine::health::Mode;
use engine::rate;

use crate::order::Line;
use crate::watch::{Model, Order};

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
    /// Choosing the layer of a mode, of these.
    Layer { layers: Vec<String> },
    /// Choosing the mode. `layer`: `None` for all of them. `minutes`: as typed, empty for no end.
    Mode { layer: Option<String>, minutes: String },
    /// The nodes are asked what it would do.
    Asking { order: Order },
    /// Looking at what an order would do.
    Confirming { order: Order, preview: Vec<Line> },
    /// It was sent.
    Sent { order: Order },
    /// What came back, a line a node.
    Told { lines: Vec<Line> },
}

/// What the loop has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    /// Ask all nodes what it would do.
    Foresee(Order),
    Send(Order),
}

/// No rate has more characters.
const TEXT_MAX: usize = 24;
/// Digits of minutes: half a year.
const MINUTES_MAX: usize = 6;

impl Dialogue {
    /// Takes one key.
    pub(super) fn press(self, key: Key, model: &mut Model) -> (Dialogue, Step) {
        match self {
            Dialogue::Looking | Dialogue::Told { .. } => looking(key, model),
            Dialogue::Typing { text, .. } => typing(text, key, model),
            Dialogue::Layer { layers } => (choosing_layer(layers, key), Step::Stay),
            Dialogue::Mode { layer, minutes } => choosing_mode(layer, minutes, key, model),
            Dialogue::Confirming { order, preview } => match key {
                Key::Char('y' | 'Y') | Key::Enter => (Dialogue::Sent { order: order.clone() }, Step::Send(order)),
                Key::Char('n' | 'N' | 'q') | Key::Escape => (Dialogue::Looking, Step::Stay),
                Key::Char(_) | Key::Backspace | Key::Up | Key::Down => {
                    (Dialogue::Confirming { order, preview }, Step::Stay)
                }
            },
            Dialogue::Asking { order } => match key {
                Key::Char('q') => (Dialogue::Asking { order }, Step::Quit),
                Key::Escape => (Dialogue::Looking, Step::Stay),
                Key::Char(_) | Key::Enter | Key::Backspace | Key::Up | Key::Down => {
                    (Dialogue::Asking { order }, Step::Stay)
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

    /// What the nodes say an order would do. Whoever has left meanwhile, or asks for another, is not disturbed.
    pub(super) fn foreseen(self, of: &Order, preview: Vec<Line>) -> Dialogue {
        let is_asked = matches!(&self, Dialogue::Asking { order } if order == of);
        if is_asked { Dialogue::Confirming { order: of.clone(), preview } } else { self }
    }

    /// The answers to what was sent.
    pub(super) fn told(self, lines: Vec<Line>) -> Dialogue {
        if matches!(self, Dialogue::Sent { .. }) { Dialogue::Told { lines } } else { self }
    }
}

fn looking(key: Key, model: &mut Model) -> (Dialogue, Step) {
    let stay = |dialogue| (dialogue, Step::Stay);
    match key {
        Key::Char('q' | 'Q') => (Dialogue::Looking, Step::Quit),
        Key::Up | Key::Char('k') => {
            model.select(false);
            stay(Dialogue::Looking)
        }
        Key::Down | Key::Char('j') => {
            model.select(true);
            stay(Dialogue::Looking)
        }
        Key::Char('r') => stay(Dialogue::Typing { text: String::new(), wrong: None }),
        Key::Char('p') => {
            let all_paused = model.replays().all(|(_, replay)| replay.settings.paused);
            let any = model.replays().next().is_some();
            asking(if any && all_paused { Order::Resume } else { Order::Pause }, model)
        }
        Key::Char('m') => {
            let layers: Vec<String> = model.modes().into_iter().map(|mode| mode.in_force.layer).collect();
            if layers.is_empty() {
                return stay(refused("no node says which modes there are"));
            }
            stay(Dialogue::Layer { layers })
        }
        Key::Char('d') => drain(model),
        Key::Char(_) | Key::Enter | Key::Escape | Key::Backspace => stay(Dialogue::Looking),
    }
}

/// Previews it, out of what was seen where that is enough.
fn asking(order: Order, model: &Model) -> (Dialogue, Step) {
    match order.preview(model) {
        Some(preview) => (Dialogue::Confirming { order, preview }, Step::Stay),
        None => (Dialogue::Asking { order: order.clone() }, Step::Foresee(order)),
    }
}

fn refused(why: impl Into<String>) -> Dialogue {
    Dialogue::Told { lines: vec![Line::bad(why)] }
}

/// The selected node is drained, or let in again.
fn drain(model: &Model) -> (Dialogue, Step) {
    let Some(node) = model.selected() else { return (Dialogue::Looking, Step::Stay) };
    let name = node.name.clone();
    match model.traffic(node) {
        Some(traffic) if traffic.drained => asking(Order::Undrain(name), model),
        Some(_) => asking(Order::Drain(name), model),
        None => (refused(format!("{name}: only partial and final nodes are drained")), Step::Stay),
    }
}

fn choosing_layer(layers: Vec<String>, key: Key) -> Dialogue {
    let chosen = |layer| Dialogue::Mode { layer, minutes: String::new() };
    match key {
        Key::Escape | Key::Char('q') => Dialogue::Looking,
        Key::Char('a') => chosen(None),
        Key::Char(letter) => match layers.iter().find(|layer| layer.starts_with(letter)) {
            Some(layer) => chosen(Some(layer.clone())),
            None => Dialogue::Layer { layers },
        },
        Key::Enter | Key::Backspace | Key::Up | Key::Down => Dialogue::Layer { layers },
    }
}

fn choosing_mode(layer: Option<String>, mut minutes: String, key: Key, model: &Model) -> (Dialogue, Step) {
    match key {
        Key::Escape | Key::Char('q') => return (Dialogue::Looking, Step::Stay),
        Key::Backspace => {
            minutes.pop();
        }
        Key::Char(digit) if digit.is_ascii_digit() => {
            if minutes.len() < MINUTES_MAX {
                minutes.push(digit);
            }
        }
        Key::Char(letter) => {
            if let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.as_str().starts_with(letter)) {
                let lasts = minutes.parse::<u64>().ok().filter(|minutes| *minutes > 0).map(|minutes| minutes * 60);
                return asking(Order::Mode { layer, mode, lasts }, model);
            }
        }
        Key::Enter | Key::Up | Key::Down => {}
    }
    (Dialogue::Mode { layer, minutes }, Step::Stay)
}

fn typing(mut text: String, key: Key, model: &Model) -> (Dialogue, Step) {
    match key {
        Key::Escape => return (Dialogue::Looking, Step::Stay),
        Key::Backspace => {
            text.pop();
        }
        Key::Char(c) if text.chars().count() < TEXT_MAX => text.push(c),
        Key::Char(_) | Key::Up | Key::Down => {}
        Key::Enter => {
            return match rate::parse(&text) {
                Ok(points) => asking(Order::Rate(points), model),
                Err(wrong) => (Dialogue::Typing { text, wrong: Some(wrong.to_string()) }, Step::Stay),
            };
        }
    }
    (Dialogue::Typing { text, wrong: None }, Step::Stay)
}

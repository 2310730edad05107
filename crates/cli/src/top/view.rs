//! Draws the model. What is abnormal is marked by words first, and by colour where there is any.

use admin_api::{LayerMode, Verdict};
use engine::rate;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, Wrap};

use super::dialogue::Dialogue;
use crate::amount::{bytes, count};
use crate::moment;
use crate::order::Line as Said;
use crate::status::words;
use crate::table::{duration, millis};
use crate::watch::{Flow, HISTORY, Mode, Model, NodeView};

/// Columns of a spark line in the table of nodes.
const SPARKS: usize = 16;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Fits a terminal of 80 columns.
const KEYS: &str = "q quit  ↑↓ node  r replay rate  p pause replay  m health mode  d drain node";

type Graph = (&'static str, fn(Flow) -> u64);
const GRAPHS: [Graph; 4] = [
    ("in", |flow| flow.taken_in),
    ("out", |flow| flow.handed_on),
    ("spill", |flow| flow.spilled),
    ("replay", |flow| flow.replayed),
];

/// Draws everything. `colour`: whether the terminal shall have any.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, dialogue: &Dialogue, colour: bool) {
    let nodes = u16::try_from(model.nodes.len()).unwrap_or(u16::MAX).saturating_add(1);
    let [head, table, detail, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Max(nodes.saturating_add(1)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let total = model.nodes.len();
    let title = format!("spillway {}: {} of {total} nodes ready", model.cluster, model.ready());
    let title = Line::styled(title, Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Paragraph::new(vec![title, Line::from(modes(model))]), head);
    frame.render_widget(table_of(model, colour), table);
    if let Some(node) = model.selected() {
        draw_detail(frame, model, node, detail);
    }
    frame.render_widget(Paragraph::new(KEYS), foot);
    draw_dialogue(frame, dialogue, colour);
}

/// `health modes: partial auto, lenient in effect; final auto`
fn modes(model: &Model) -> String {
    let shown = |mode: Mode| {
        let LayerMode { layer, mode: word, until, then, .. } = &mode.in_force;
        let until = until.map_or(String::new(), |end| {
            format!(" until {}, then {}", moment::show(end), then.as_deref().unwrap_or("as before"))
        });
        let effect = mode.effect.filter(|effect| effect != word);
        let effect = effect.map_or(String::new(), |effect| format!(", {effect} in effect"));
        let agreed = if mode.agreed { "" } else { ", NODES DIFFER" };
        format!("{layer} {word}{until}{effect}{agreed}")
    };
    let modes: Vec<String> = model.modes().into_iter().map(shown).collect();
    if modes.is_empty() { String::new() } else { format!("health modes: {}", modes.join("; ")) }
}

fn table_of(model: &Model, colour: bool) -> Table<'_> {
    let heading = ["", "NODE", "LAYER", "VERDICT", "IN/S", "OUT/S", "SPILL/S", "REPLAY/S", "IN, 16 S", "QUEUE", "LAG"];
    let head = Row::new(heading.into_iter().chain(["BACKLOG", "REASON"])).style(Modifier::BOLD);
    let rows = model.nodes.iter().enumerate().map(|(at, node)| row(model, node, at == model.selected, colour));
    let name = model.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(4);
    let widths = [1, u16::try_from(name.clamp(4, 24)).unwrap_or(24), 8, 10, 9, 9, 9, 9, 16, 10, 8, 9];
    let widths = widths.map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(head).column_spacing(1)
}

fn row(model: &Model, node: &NodeView, selected: bool, colour: bool) -> Row<'static> {
    let (word, reason) = said(node);
    let traffic = model.traffic(node).map(|traffic| traffic.reasons).unwrap_or_default();
    let reason = [reason].into_iter().chain(traffic).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    let flow = |of: fn(Flow) -> u64| Cell::from(node.flow().map_or("-".to_owned(), |flow| count(of(flow))));
    let queue = node.queue();
    let cells = [
        Cell::from(if selected { ">" } else { "" }),
        Cell::from(node.name.clone()),
        Cell::from(node.layer.as_str()),
        Cell::from(Span::styled(word, if colour { style(node) } else { Style::new() })),
        flow(|flow| flow.taken_in),
        flow(|flow| flow.handed_on),
        flow(|flow| flow.spilled),
        flow(|flow| flow.replayed),
        Cell::from(sparks(node)),
        Cell::from(queue.map_or("-".to_owned(), |(held, _)| bytes(held))),
        Cell::from(queue.map_or("-".to_owned(), |(_, oldest)| millis(oldest))),
        Cell::from(node.backlog().map_or("-".to_owned(), count)),
        Cell::from(reason),
    ];
    Row::new(cells)
}

/// The word for a node, and why.
fn said(node: &NodeView) -> (&'static str, String) {
    match node.look.as_ref().map(|look| &look.status) {
        None => ("asking", String::new()),
        Some(Err(error)) => ("no answer", error.clone()),
        Some(Ok(status)) => {
            let (word, reason) = words(&status.verdict);
            let spill = node.look.as_ref().and_then(|look| look.spill.as_ref()).filter(|spill| spill.mode != "ok");
            let spill = spill.map(|spill| format!("spill {}: {}", spill.mode, spill.detail)).unwrap_or_default();
            (word, [reason, spill].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
        }
    }
}

fn style(node: &NodeView) -> Style {
    match node.verdict() {
        Some(Verdict::Ready) => Style::new().fg(Color::Green),
        Some(Verdict::Starting | Verdict::Draining | Verdict::Overloaded { .. }) => Style::new().fg(Color::Yellow),
        Some(Verdict::Degraded { .. }) | None => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// What came in over the last seconds, a column each; a blank for what is not known.
fn sparks(node: &NodeView) -> String {
    let seconds = node.history.iter().rev().take(SPARKS).rev().map(|flow| flow.map(|flow| flow.taken_in));
    let most = seconds.clone().flatten().max().unwrap_or(0).max(1);
    let level = |value: u64| usize::try_from(value.saturating_mul(7) / most).unwrap_or(7).min(7);
    seconds.map(|value| value.map_or(' ', |value| BARS[level(value)])).collect()
}

fn draw_detail(frame: &mut Frame<'_>, model: &Model, node: &NodeView, area: Rect) {
    let block = Block::bordered().title(format!(" {} ", node.name));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [graphs, text] = Layout::vertical([Constraint::Length(8), Constraint::Min(0)]).areas(inner);
    let lines = Layout::vertical([Constraint::Length(2); 4]).split(graphs);
    for ((name, of), line) in GRAPHS.into_iter().zip(lines.iter()) {
        let [label, graph] = Layout::horizontal([Constraint::Length(18), Constraint::Max(60)]).areas(*line);
        let now = node.flow().map_or("-".to_owned(), |flow| format!("{}/s", count(of(flow))));
        frame.render_widget(Paragraph::new(format!("{name:<7}{now}")), label);
        let missing = HISTORY.saturating_sub(node.history.len());
        let known = node.history.iter().map(|flow| flow.map(of));
        let values: Vec<Option<u64>> = std::iter::repeat_n(None, missing).chain(known).collect();
        frame.render_widget(Sparkline::default().data(values), graph);
    }
    frame.render_widget(Paragraph::new(facts(model, node)).wrap(Wrap { trim: false }), text);
}

/// What else is worth knowing of a node.
fn facts(model: &Model, node: &NodeView) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> =
        model.traffic(node).into_iter().flat_map(|traffic| traffic.reasons).map(Line::from).collect();
    let Some(look) = &node.look else { return lines };
    if let Ok(status) = &look.status {
        for worker in status.workers.iter().filter(|worker| worker.state != "running") {
            let error = worker.last_error.clone().unwrap_or_default();
            lines.push(Line::from(format!(
                "worker {}: {}, {} restarts: {error}",
                worker.name, worker.state, worker.restarts
            )));
        }
        for peer in status.peers.iter().filter(|peer| peer.state != "up") {
            let error = peer.last_error.clone().unwrap_or_default();
            lines.push(Line::from(format!("peer {}: {} {error}", peer.peer, peer.state)));
        }
    }
    if let Some(spill) = &look.spill {
        let (size, quota) = (bytes(spill.bytes), bytes(spill.quota_bytes));
        lines.push(Line::from(format!("spill: {}, {size} of {quota} {}", spill.mode, spill.detail)));
    }
    if let Some(replay) = &look.replay {
        let state = if replay.settings.paused { "paused" } else { replay.limited_by.as_str() };
        let eta = replay.eta_seconds.map(|seconds| format!(", done in {}", duration(seconds))).unwrap_or_default();
        lines.push(Line::from(format!(
            "replay: {} of {} allowed, limited by {state}, {} points wait{eta}",
            rate::show(replay.rate_now),
            rate::show(replay.settings.rate),
            count(replay.backlog_points)
        )));
        lines.extend(replay.notes.iter().map(|note| Line::from(note.clone())));
    }
    lines
}

fn draw_dialogue(frame: &mut Frame<'_>, dialogue: &Dialogue, colour: bool) {
    let Some((title, lines)) = words_of(dialogue) else { return };
    let area = frame.area();
    let width = area.width.saturating_sub(4).min(110);
    let style = |line: &Said| if line.bad && colour { Style::new().fg(Color::Red) } else { Style::new() };
    let text: Vec<Line<'_>> = lines.iter().map(|line| Line::styled(line.text.as_str(), style(line))).collect();
    let paragraph = Paragraph::new(text).wrap(Wrap { trim: false });
    let inside = usize::from(width.saturating_sub(2)).max(1);
    // Words that go over to the next line leave some of the room empty.
    let rows: usize =
        lines.iter().map(|line| line.text.chars().count().div_ceil(inside.saturating_sub(8).max(1)).max(1)).sum();
    let height = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2).min(area.height);
    let left = (area.width - width) / 2;
    let place = Rect { x: left, y: area.height.saturating_sub(height + 1), width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(paragraph.block(Block::bordered().title(format!(" {title} "))), place);
}

/// What stands in the box, under which title; `None` for no box.
fn words_of(dialogue: &Dialogue) -> Option<(&'static str, Vec<Said>)> {
    let plain = |lines: &[&str]| lines.iter().map(|line| Said::plain(*line)).collect::<Vec<_>>();
    Some(match dialogue {
        Dialogue::Looking => return None,
        Dialogue::Typing { text, wrong } => {
            let typed = format!("points per second: {text}_");
            let mut lines = plain(&[&typed, "such as 50k/s, 1.5M/s, max; Enter shows what it would do, Esc leaves"]);
            lines.extend(wrong.clone().map(Said::bad));
            ("replay rate", lines)
        }
        Dialogue::Layer { layers } => {
            let first = |layer: &String| layer.chars().next().map(|letter| format!("{letter} {layer}"));
            let layers: Vec<String> = layers.iter().filter_map(first).collect();
            let choice = format!("of which layer?   a all   {}", layers.join("   "));
            ("health mode", plain(&[&choice, "Esc leaves"]))
        }
        Dialogue::Mode { layer, minutes } => {
            let layer = layer.as_deref().unwrap_or("all layers");
            let lasts = if minutes.is_empty() {
                "until it is changed; type digits for so many minutes".to_owned()
            } else {
                format!("for {minutes}_ minutes")
            };
            let lasts = format!("{layer}, {lasts}");
            let modes = "s strict: proven by canaries   l lenient: the link is up   a auto: strict as long as that leaves enough";
            ("health mode", plain(&[&lasts, modes, "a letter shows what it would do, Esc leaves"]))
        }
        Dialogue::Asking { order } => ("asking the nodes what it would do", plain(&[&order.command()])),
        Dialogue::Confirming { order, preview } => {
            let mut lines = plain(&[&order.command()]);
            lines.extend(preview.iter().cloned());
            lines.extend(plain(&["y does it, n does not"]));
            ("do this?", lines)
        }
        Dialogue::Sent { order } => ("sent", plain(&[&order.command()])),
        Dialogue::Told { lines } => ("done", lines.clone()),
    })
}

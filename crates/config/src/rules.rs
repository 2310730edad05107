//! `[[route]]` and `[[rule]]`: which series go where, and what is computed of them.

use std::time::Duration;

use engine::pattern::Selector;
use engine::route::{RouteSpec, Target};
use engine::rule::{Function, RuleSpec};

use crate::document::{Document, Effective, Item, Origin, Section, show_list};
use crate::nodes::known_names;
use crate::setting::{Name, Setting as _, quote};
use crate::stores::StoreDraft;
use crate::suggest::nearest;

const TARGETS: &str = "\"aggregate\", \"drop\" or names of stores, such as [\"aggregate\", \"carbon\"]";
const FUNCTIONS: &str = "sum, count, avg, min, max, first, last, rate, stddev, distinct, or a percentile such as p99";
const NAMES: [&str; 12] =
    ["sum", "count", "avg", "min", "max", "first", "last", "rate", "stddev", "distinct", "p99", "p95"];
const DAY: Duration = Duration::from_secs(86_400);

/// Reads one `[[route]]`; `None` if it selects nothing that can be understood.
pub(crate) fn read_route(
    document: &Document<'_>,
    mut section: Section<'_, '_>,
    stores: &[StoreDraft],
) -> Option<RouteSpec> {
    section.show_header("route");
    let selector = selector(document, &mut section);
    let mut to = Vec::new();
    for Item { path, text } in section.required_strings("to", "where the series goes", TARGETS) {
        match target(document, &path, &text, stores) {
            Some(target) if to.contains(&target) => {
                document.error(&path, format!("{} stands here twice", quote(&text)), "each target once");
            }
            Some(target) => to.push(target),
            None => {}
        }
    }
    if to.contains(&Target::Drop) && to.len() > 1 {
        let key = section.key("to");
        document.error(&key, "a series is dropped or delivered, not both", "\"drop\" stands alone");
    }
    let stop = section.or("stop", false);
    section.finish();
    Some(RouteSpec { selector: selector?, to, stop })
}

/// What is done without any `[[route]]`: every series goes to every store, and to the rules if there are any.
pub(crate) fn default_route(document: &Document<'_>, stores: &[StoreDraft], rules: bool) -> RouteSpec {
    let mut to: Vec<Target> = (0..stores.len()).map(Target::Store).collect();
    let mut names: Vec<&str> = stores.iter().map(|store| store.name.as_deref().unwrap_or_default()).collect();
    if rules {
        to.insert(0, Target::Aggregate);
        names.insert(0, "aggregate");
    }
    let value = |key, text| Effective::Value { key, text, origin: Origin::Default };
    document.effective(Effective::Header("[[route]]".into(), Origin::Default));
    document.effective(value("glob", quote("**")));
    document.effective(value("to", show_list(&names)));
    document.effective(value("stop", "false".into()));
    RouteSpec { selector: Selector::Glob("**".into()), to, stop: false }
}

/// Reads one `[[rule]]`; `None` if its name, selector or output could not be read.
pub(crate) fn read_rule(
    document: &Document<'_>,
    mut section: Section<'_, '_>,
    stores: &[StoreDraft],
) -> Option<RuleSpec> {
    section.show_header("rule");
    let name = section.required::<Name>("name", "messages and metrics name the rule by it").map(|name| name.0);
    let selector = selector(document, &mut section);
    let output =
        section.required::<String>("output", "the name of the result, such as \"web.all.requests.{function}\"");
    let interval = seconds(document, &mut section, "interval", 10, Duration::from_secs(1));
    let grace = seconds(document, &mut section, "grace", 5, Duration::ZERO);
    let functions = functions(document, &mut section);
    let group_by = section.strings_or("group_by", "names of tags, such as [\"dc\"]", &[]);
    let group_by = group_by.into_iter().map(|item| item.text).collect();
    let drop_raw = section.or("drop_raw", false);
    let completeness = section.or("completeness", false);
    let all: Vec<&str> = stores.iter().filter_map(|store| store.name.as_deref()).collect();
    let mut to = Vec::new();
    for Item { path, text } in section.strings_or("to", "names of stores, such as [\"carbon\"]", &all) {
        match store_index(document, &path, &text, stores) {
            Some(store) if to.contains(&store) => {
                document.error(&path, format!("{} stands here twice", quote(&text)), "each store once");
            }
            Some(store) => to.push(store),
            None => {}
        }
    }
    section.finish();
    let (name, selector, output) = (name?, selector?, output?);
    Some(RuleSpec { name, selector, interval, grace, functions, output, group_by, drop_raw, completeness, to })
}

/// Either `glob` or `regex`.
fn selector(document: &Document<'_>, section: &mut Section<'_, '_>) -> Option<Selector> {
    let glob = section.optional::<String>("glob");
    let regex = section.optional::<String>("regex");
    let written = |key: &str| document.has(&section.key(key));
    match (written("glob"), written("regex")) {
        (true, true) => {
            let help = "keep the one that is meant; `regex` sees tags too and is not anchored";
            document.clash(
                &section.key("regex"),
                "`glob` and `regex` exclude each other",
                help,
                &section.key("glob"),
                "the other one",
            );
        }
        (false, false) => {
            let help = "which series are meant: glob = \"web.*.requests\" or regex = '^web\\.'; \"**\" is every series";
            document.missing(&section.key("glob"), "neither `glob` nor `regex`", help);
        }
        (true, false) | (false, true) => {}
    }
    glob.map(Selector::Glob).or(regex.map(Selector::Regex))
}

fn target(document: &Document<'_>, path: &str, name: &str, stores: &[StoreDraft]) -> Option<Target> {
    match name {
        "aggregate" => Some(Target::Aggregate),
        "drop" => Some(Target::Drop),
        store => {
            let known = stores.iter().position(|draft| draft.name.as_deref() == Some(store));
            if known.is_none() {
                let words = ["aggregate", "drop"].into_iter();
                let names = words.chain(stores.iter().filter_map(|draft| draft.name.as_deref()));
                document.error(path, format!("{} is no target", quote(store)), known_names(store, "targets", names));
            }
            known.map(Target::Store)
        }
    }
}

/// The position of the store of that name; reports it if there is none.
pub(crate) fn store_index(document: &Document<'_>, path: &str, name: &str, stores: &[StoreDraft]) -> Option<usize> {
    let known = stores.iter().position(|draft| draft.name.as_deref() == Some(name));
    if known.is_none() {
        let names = stores.iter().filter_map(|draft| draft.name.as_deref());
        document.error(path, format!("{} is no store", quote(name)), known_names(name, "stores", names));
    }
    known
}

/// Whole seconds up to a day: windows and their first emission are counted in seconds.
fn seconds(
    document: &Document<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: u64,
    least: Duration,
) -> u32 {
    let read = section.within(key, Duration::from_secs(default), least..=DAY);
    if read.subsec_nanos() != 0 {
        let help = "Graphite's time has whole seconds, such as \"10s\"";
        document.error(&section.key(key), format!("{} is not a whole number of seconds", read.show()), help);
    }
    u32::try_from(read.as_secs()).unwrap_or(u32::MAX)
}

fn functions(document: &Document<'_>, section: &mut Section<'_, '_>) -> Vec<Function> {
    let mut functions = Vec::new();
    for Item { path, text } in section.required_strings("functions", "what is computed", FUNCTIONS) {
        match Function::parse(&text) {
            Some(function) if functions.contains(&function) => {
                document.error(&path, format!("{} stands here twice", quote(&text)), "each function once");
            }
            Some(function) => functions.push(function),
            None => {
                let help = match nearest(&text, NAMES) {
                    Some(near) => format!("did you mean {}?", quote(near)),
                    None => FUNCTIONS.to_owned(),
                };
                document.error(&path, format!("{} is no function", quote(&text)), help);
            }
        }
    }
    functions
}

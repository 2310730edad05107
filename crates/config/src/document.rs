//! Walks a parsed TOML document key by key. A wrong value does not stop the walk: it is reported and its default is
//! taken, so one pass finds everything. The walk also writes down each value that is in effect and where it comes from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, Severity, clip, position};
use crate::setting::{Setting, quote};
use crate::suggest::nearest;

/// Where a value in effect comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// Line of the file, counted from 1.
    Line(usize),
}

/// One line of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effective {
    /// `[send]` or `[[node]]`
    Header(String, Origin),
    Value {
        key: &'static str,
        text: String,
        origin: Origin,
    },
}

/// What one walk finds out.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    text: &'t str,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    problems: Vec<Problem>,
    effective: Vec<Effective>,
    /// Key path to the span of its value (or of a table's header).
    spans: BTreeMap<String, Range<usize>>,
    /// The text is no TOML in places, so a missing key may only look missing.
    damaged: bool,
}

/// One string of a list.
#[derive(Debug)]
pub(crate) struct Item {
    /// Such as `route[1].to[2]`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A table of the document, or the absence of one.
#[derive(Debug)]
pub(crate) struct Section<'d, 't> {
    document: &'d Document<'t>,
    table: Option<&'d DeTable<'t>>,
    path: String,
    asked: Vec<&'static str>,
}

impl<'t> Document<'t> {
    pub(crate) fn new(text: &'t str) -> Document<'t> {
        Document { text, found: RefCell::default() }
    }

    /// Takes up what the parser found; the walk then goes on over what it could make out.
    pub(crate) fn syntax_errors(&self, errors: &[toml::de::Error]) {
        for error in errors {
            self.report(Severity::Error, "", error.span().unwrap_or(0..0), error.message().into(), String::new(), None);
        }
        self.found.borrow_mut().damaged = !errors.is_empty();
    }

    /// The document's own table.
    pub(crate) fn root<'d>(&'d self, table: &'d DeTable<'t>) -> Section<'d, 't> {
        Section { document: self, table: Some(table), path: String::new(), asked: Vec::new() }
    }

    /// A problem with what stands at `key` (or, if it is not there, with the table it belongs to).
    pub(crate) fn error(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Error, key, self.span_of(key), message.into(), help.into(), None);
    }

    /// A problem of two places: `other` is marked too, with `label`.
    pub(crate) fn clash(&self, key: &str, message: impl Into<String>, help: &str, other: &str, label: &str) {
        let related = (self.span_of(other), label.to_owned());
        self.report(Severity::Error, key, self.span_of(key), message.into(), help.into(), Some(related));
    }

    /// Something that is allowed but hardly meant.
    pub(crate) fn warning(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Warning, key, self.span_of(key), message.into(), help.into(), None);
    }

    /// What is missing in a text that is no TOML may be there for its author: such problems are kept back.
    pub(crate) fn missing(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        if !self.found.borrow().damaged {
            self.error(key, message, help);
        }
    }

    /// Whether `key` stands in the file.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.found.borrow().spans.contains_key(key)
    }

    /// Whether anything found so far forbids to use the file.
    pub(crate) fn has_errors(&self) -> bool {
        self.found.borrow().problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Whether anything found so far is wrong with this very key.
    pub(crate) fn has_error_at(&self, key: &str) -> bool {
        let found = self.found.borrow();
        found.problems.iter().any(|problem| problem.severity == Severity::Error && problem.key == key)
    }

    /// Whether anything found so far is wrong with a key of the table at `path`.
    pub(crate) fn has_errors_in(&self, path: &str) -> bool {
        let inside = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.found.borrow().problems.iter().any(|problem| problem.severity == Severity::Error && inside(&problem.key))
    }

    /// Writes down a value that is in effect without a key of its own having been read.
    pub(crate) fn effective(&self, line: Effective) {
        self.found.borrow_mut().effective.push(line);
    }

    /// Problems in the order of their finding, and the effective configuration.
    pub(crate) fn into_found(self) -> (Vec<Problem>, Vec<Effective>) {
        let found = self.found.into_inner();
        (found.problems, found.effective)
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        position(self.text, span.start).0
    }

    /// The span of a key, or of the nearest table around it that is in the file.
    fn span_of(&self, key: &str) -> Range<usize> {
        let spans = &self.found.borrow().spans;
        let mut path = key;
        loop {
            if let Some(span) = spans.get(path) {
                return span.clone();
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return 0..0,
            }
        }
    }

    fn report(
        &self,
        severity: Severity,
        key: &str,
        span: Range<usize>,
        message: String,
        help: String,
        related: Option<(Range<usize>, String)>,
    ) {
        let span = clip(self.text, span);
        let related = related.map(|(span, label)| (clip(self.text, span), label));
        let (line, column) = position(self.text, span.start);
        let mut found = self.found.borrow_mut();
        // What follows from a line that is no TOML is noise.
        let echo = found.problems.iter().any(|problem| problem.key.is_empty() && problem.line == line);
        if !(echo && found.damaged) {
            found.problems.push(Problem { severity, line, column, key: key.into(), message, help, span, related });
        }
    }
}

impl<'d, 't> Section<'d, 't> {
    /// The path of a key of this table, as problems name it.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The path of this table.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The table `[key]`; an absent one is as good as an empty one.
    pub(crate) fn table(&mut self, key: &'static str) -> Section<'d, 't> {
        let path = self.key(key);
        let mut table = None;
        let mut origin = Origin::Default;
        if let Some(value) = self.take(key) {
            origin = Origin::Line(self.document.line_of(&value.span()));
            table = value.get_ref().as_table();
            if table.is_none() {
                let message = format!("expected a table, found {}", describe(value.get_ref()));
                self.document.error(&path, message, format!("write it as `[{path}]`"));
            }
        }
        self.document.effective(Effective::Header(format!("[{path}]"), origin));
        Section { document: self.document, table, path, asked: Vec::new() }
    }

    /// The tables `[[key]]`, in the order of the file; their paths are `key[1]`, `key[2]`, ...
    pub(crate) fn list(&mut self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("expected a list of tables, found {}", describe(value.get_ref()));
            self.document.error(&self.key(key), message, format!("write it as `[[{key}]]`, once for each"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let path = format!("{}[{}]", self.key(key), index + 1);
            self.document.found.borrow_mut().spans.insert(path.clone(), item.span());
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section { document: self.document, table: Some(table), path, asked: Vec::new() });
                }
                None => {
                    let message = format!("expected a table, found {}", describe(item.get_ref()));
                    self.document.error(&path, message, format!("write it as `[[{key}]]`"));
                }
            }
        }
        sections
    }

    /// Writes down that a `[[...]]` begins here.
    pub(crate) fn show_header(&self, name: &str) {
        let origin = Origin::Line(self.document.line_of(&self.document.span_of(&self.path)));
        self.document.effective(Effective::Header(format!("[[{name}]]"), origin));
    }

    /// The value of `key` if it is there and right.
    pub(crate) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        let Some(read) = T::read(value.get_ref()) else {
            self.reject::<T>(key, value.get_ref());
            return None;
        };
        let origin = Origin::Line(self.document.line_of(&value.span()));
        self.document.effective(Effective::Value { key, text: read.show(), origin });
        Some(read)
    }

    /// The value of `key`, which must be there. `what` says what it is for.
    pub(crate) fn required<T: Setting>(&mut self, key: &'static str, what: &str) -> Option<T> {
        if self.table.is_none_or(|table| !table.contains_key(key)) {
            self.asked.push(key);
            // A table that is none was reported already.
            if self.table.is_none() && self.document.has(&self.path) {
                return None;
            }
            self.document.missing(&self.key(key), format!("`{key}` is missing"), format!("{what}; {}", T::EXPECTED));
            return None;
        }
        self.optional(key)
    }

    /// The value of `key`, or its default.
    pub(crate) fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        if self.table.is_some_and(|table| table.contains_key(key)) {
            return self.optional(key).unwrap_or(default);
        }
        self.asked.push(key);
        self.document.effective(Effective::Value { key, text: default.show(), origin: Origin::Default });
        default
    }

    /// The value of `key`, or its default; outside of `range` it is a problem.
    pub(crate) fn within<T: Setting + PartialOrd>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let value = self.or(key, default);
        if !range.contains(&value) && self.document.has(&self.key(key)) {
            let message = format!("{} is out of range", value.show());
            let help = format!("from {} to {}", range.start().show(), range.end().show());
            self.document.error(&self.key(key), message, help);
        }
        value
    }

    /// The strings of the list `key`, or `None` if it is absent or no list. What is no string is reported and left out.
    pub(crate) fn strings(&mut self, key: &'static str, expected: &str) -> Option<Vec<Item>> {
        let value = self.take(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("expected a list of strings, found {}", describe(value.get_ref()));
            let help = match value.get_ref().as_str() {
                Some(single) => format!("write [{}]", quote(single)),
                None => expected.to_owned(),
            };
            self.document.error(&self.key(key), message, help);
            return None;
        };
        let mut items = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let path = format!("{}[{}]", self.key(key), index + 1);
            self.document.found.borrow_mut().spans.insert(path.clone(), item.span());
            match item.get_ref().as_str() {
                Some(text) => items.push(Item { path, text: text.to_owned() }),
                None => {
                    let message = format!("expected a string, found {}", describe(item.get_ref()));
                    self.document.error(&path, message, expected);
                }
            }
        }
        if array.is_empty() && key != "group_by" {
            self.document.error(&self.key(key), "the list is empty", expected);
        }
        let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        let origin = Origin::Line(self.document.line_of(&value.span()));
        self.document.effective(Effective::Value { key, text: show_list(&texts), origin });
        Some(items)
    }

    /// As [`Section::strings`], but the list must be there. `what` says what it is for.
    pub(crate) fn required_strings(&mut self, key: &'static str, what: &str, expected: &str) -> Vec<Item> {
        let items = self.strings(key, expected);
        let path = self.key(key);
        if items.is_none() && !self.document.has(&path) {
            self.document.missing(&path, format!("`{key}` is missing"), format!("{what}; {expected}"));
        }
        items.unwrap_or_default()
    }

    /// As [`Section::strings`], with a default.
    pub(crate) fn strings_or(&mut self, key: &'static str, expected: &str, default: &[&str]) -> Vec<Item> {
        if self.table.is_some_and(|table| table.contains_key(key)) {
            return self.strings(key, expected).unwrap_or_default();
        }
        self.asked.push(key);
        self.document.effective(Effective::Value { key, text: show_list(default), origin: Origin::Default });
        let path = self.key(key);
        default.iter().map(|text| Item { path: path.clone(), text: (*text).to_owned() }).collect()
    }

    /// Reports each key that nobody asked for. To be called when all keys have been read.
    pub(crate) fn finish(self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let path = self.key(name);
            self.document.found.borrow_mut().spans.insert(path.clone(), key.span());
            let place =
                if self.path.is_empty() { "at the top level".to_owned() } else { format!("in `{}`", self.path) };
            let mut known = self.asked.clone();
            known.sort_unstable();
            let help = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys here: {}", known.join(", ")),
            };
            self.document.error(&path, format!("unknown key `{name}` {place}"), help);
        }
    }

    /// The raw value of `key`; from now on the key is known, and its span too.
    fn take(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let value = self.table?.get(key)?;
        self.document.found.borrow_mut().spans.insert(self.key(key), value.span());
        Some(value)
    }

    fn reject<T: Setting>(&self, key: &str, value: &DeValue<'_>) {
        let message = match value.as_str() {
            Some(_) => format!("{} is no {}", describe(value), T::KIND),
            None => format!("expected a {}, found {}", T::KIND, describe(value)),
        };
        let help = T::hint(value).unwrap_or_else(|| T::EXPECTED.to_owned());
        self.document.error(&self.key(key), message, help);
    }
}

/// A TOML list of strings.
pub(crate) fn show_list(strings: &[&str]) -> String {
    let quoted: Vec<String> = strings.iter().map(|string| quote(string)).collect();
    format!("[{}]", quoted.join(", "))
}

/// What stands in the file, for a message: a scalar itself, anything else by its type.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(string) => quote(&cut(string)),
        DeValue::Integer(integer) => format!("the number {}", cut(integer.as_str())),
        DeValue::Float(float) => format!("the number {}", cut(float.as_str())),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// Long values are cut in messages; the excerpt shows them whole.
fn cut(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}

//! Prints the effective configuration.

use std::collections::BTreeMap;

use crate::document::{Effective, Origin};

/// A value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Such as `send.batch` or `node[1].name`, the first being 1.
    pub key: String,
    /// As TOML.
    pub text: String,
    /// The line of the file that set it, counted from 1; `None`: it is the default.
    pub line: Option<usize>,
}

/// Comments stand in this column, unless the value reaches further.
const COMMENT_COLUMN: usize = 44;

/// TOML with the origin of each value as a comment.
pub(crate) fn show(file: &str, lines: &[Effective]) -> String {
    let mut out = String::new();
    for line in lines {
        let (text, origin) = match line {
            Effective::Header(text, origin) => {
                if !out.is_empty() {
                    out.push('\n');
                }
                (text.clone(), *origin)
            }
            Effective::Value { key, text, origin } => (format!("{key} = {text}"), *origin),
        };
        let origin = match origin {
            Origin::Default => "default".to_owned(),
            // A file's name is no TOML: a line break in it would end the comment.
            Origin::Line(line) => format!("{}:{line}", file.replace(char::is_control, "?")),
        };
        let padding = COMMENT_COLUMN.saturating_sub(text.chars().count()).max(1);
        out.push_str(&format!("{text}{:padding$}# {origin}\n", ""));
    }
    out
}

/// Each value with its full key.
pub(crate) fn values(lines: &[Effective]) -> Vec<Value> {
    let (mut section, mut counts) = (String::new(), BTreeMap::<&str, usize>::new());
    let mut values = Vec::new();
    for line in lines {
        match line {
            Effective::Header(text, _) => {
                let list = text.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]"));
                section = match list {
                    Some(name) => {
                        let count = counts.entry(name).or_default();
                        *count += 1;
                        format!("{name}[{count}]")
                    }
                    None => text.trim_matches(['[', ']']).to_owned(),
                };
            }
            Effective::Value { key, text, origin } => values.push(Value {
                key: format!("{section}.{key}"),
                text: text.clone(),
                line: match origin {
                    Origin::Default => None,
                    Origin::Line(line) => Some(*line),
                },
            }),
        }
    }
    values
}

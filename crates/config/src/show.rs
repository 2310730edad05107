//! Prints the effective configuration.

use crate::document::{Effective, Origin};

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

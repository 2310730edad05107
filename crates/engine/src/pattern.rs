//! Patterns over series names: Graphite globs with captures, and regular expressions. Both compile to one regex.
//!
//! Glob: `*` is any run of characters inside one path element (not empty when it is the whole element), `**` as a whole
//! element is any number of elements (also none), `?` is one character, `[a-z]` a class, `{a,b}` alternatives,
//! `<name>` captures what `*` would match. A glob is anchored at both ends and is matched against the path, which is
//! the part of a name before the first `;`. A regex is not anchored and sees the whole name, tags included.

use regex::bytes::{Captures, Regex, RegexBuilder};

/// What an operator writes to select series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Glob(String),
    Regex(String),
}

/// Why a selector does not compile. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

/// A compiled selector.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    path_only: bool,
}

/// The part of a name before the first `;`: the path without tags.
pub fn path_of(name: &[u8]) -> &[u8] {
    memchr::memchr(b';', name).map_or(name, |at| &name[..at])
}

impl Pattern {
    /// Compiles either kind.
    ///
    /// # Errors
    /// When the text is no glob or no regular expression, with the reason.
    pub fn compile(selector: &Selector) -> Result<Pattern, PatternError> {
        let (text, path_only) = match selector {
            Selector::Glob(glob) => (glob_to_regex(glob)?, true),
            Selector::Regex(regex) => (regex.clone(), false),
        };
        RegexBuilder::new(&text)
            .unicode(false)
            .size_limit(8 << 20)
            .build()
            .map(|regex| Pattern { regex, path_only })
            .map_err(|error| PatternError(error.to_string()))
    }

    /// Whether `name` (with its tags) is selected.
    pub fn is_match(&self, name: &[u8]) -> bool {
        self.regex.is_match(self.subject(name))
    }

    /// The captured elements, if `name` is selected. Group 0 is the whole match.
    pub fn captures<'n>(&self, name: &'n [u8]) -> Option<Captures<'n>> {
        self.regex.captures(self.subject(name))
    }

    /// Names of the named captures, in order of their appearance.
    pub fn capture_names(&self) -> Vec<String> {
        self.regex.capture_names().flatten().map(str::to_owned).collect()
    }

    /// How many capture groups there are, named or not, without group 0.
    pub fn capture_count(&self) -> usize {
        self.regex.captures_len() - 1
    }

    fn subject<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        if self.path_only { path_of(name) } else { name }
    }
}

/// Translates a glob into an anchored regex.
fn glob_to_regex(glob: &str) -> Result<String, PatternError> {
    if glob.is_empty() {
        return Err(PatternError("an empty glob matches nothing; `**` matches every series".into()));
    }
    let mut out = String::from("^");
    let elements: Vec<&str> = glob.split('.').collect();
    let mut separator_owed = false;
    for (index, element) in elements.iter().enumerate() {
        let last = index + 1 == elements.len();
        if *element == "**" {
            match (separator_owed, last) {
                // a.** : none or more further elements
                (true, true) => out.push_str("(?:\\.[^.]+)*"),
                // a.**.b : none or more elements between
                (true, false) => out.push_str("(?:\\.[^.]+)*"),
                // ** alone
                (false, true) => out.push_str(".+"),
                // **.b
                (false, false) => {
                    out.push_str("(?:[^.]+\\.)*");
                    continue;
                }
            }
            separator_owed = true;
            continue;
        }
        if separator_owed {
            out.push_str("\\.");
        }
        element_to_regex(element, glob, &mut out)?;
        separator_owed = true;
    }
    out.push('$');
    Ok(out)
}

fn element_to_regex(element: &str, glob: &str, out: &mut String) -> Result<(), PatternError> {
    if element == "*" {
        out.push_str("[^.]+");
        return Ok(());
    }
    let mut chars = element.chars();
    let mut alternatives_open = false;
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str("[^.]*"),
            '?' => out.push_str("[^.]"),
            '{' => {
                out.push_str("(?:");
                alternatives_open = true;
            }
            '}' if alternatives_open => {
                out.push(')');
                alternatives_open = false;
            }
            ',' if alternatives_open => out.push('|'),
            '[' => {
                let class: String = chars.by_ref().take_while(|c| *c != ']').collect();
                if class.is_empty() {
                    return Err(PatternError(format!("`[` without its `]` or empty class in glob `{glob}`")));
                }
                let (negated, body) = class.strip_prefix('!').map_or(("", class.as_str()), |rest| ("^", rest));
                out.push('[');
                out.push_str(negated);
                for c in body.chars() {
                    if matches!(c, '\\' | '^' | '[' | '&' | '~') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push(']');
            }
            '<' => {
                let name: String = chars.by_ref().take_while(|c| *c != '>').collect();
                let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
                if !fits {
                    return Err(PatternError(format!(
                        "`<{name}>` in glob `{glob}`: a capture's name is letters, digits and `_`, not starting with a digit"
                    )));
                }
                out.push_str("(?P<");
                out.push_str(&name);
                out.push_str(">[^.]+)");
            }
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    if alternatives_open {
        return Err(PatternError(format!("`{{` without its `}}` in glob `{glob}`; alternatives do not cross a dot")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(glob: &str, yes: &[&str], no: &[&str]) {
        let pattern = Pattern::compile(&Selector::Glob(glob.into())).expect("glob compiles");
        for name in yes {
            assert!(pattern.is_match(name.as_bytes()), "{glob} must match {name}");
        }
        for name in no {
            assert!(!pattern.is_match(name.as_bytes()), "{glob} must not match {name}");
        }
    }

    #[test]
    fn a_star_stays_inside_one_element() {
        check(
            "web.*.requests",
            &["web.a.requests"],
            &["web.a.b.requests", "web..requests", "xweb.a.requests", "web.a.requests.x"],
        );
        check("cpu*", &["cpu", "cpu7"], &["cpu.7"]);
    }

    #[test]
    fn two_stars_cross_elements() {
        check("**", &["a", "a.b.c", "a;k=v"], &[""]);
        check("a.**", &["a", "a.b", "a.b.c"], &["ab", "b.a"]);
        check("a.**.z", &["a.z", "a.b.z", "a.b.c.z"], &["a.b", "az"]);
        check("**.z", &["z", "a.z", "a.b.z"], &["a.zz"]);
    }

    #[test]
    fn classes_and_alternatives_work_inside_an_element() {
        check("cpu.{user,system}", &["cpu.user", "cpu.system"], &["cpu.idle"]);
        check("host[0-9]", &["host1"], &["hosta"]);
        check("host[!0-9]", &["hosta"], &["host1"]);
    }

    #[test]
    fn captures_are_found_by_name() {
        let pattern = Pattern::compile(&Selector::Glob("web.<host>.requests".into())).expect("compiles");
        let captures = pattern.captures(b"web.a1.requests").expect("matches");
        assert_eq!(&captures["host"], b"a1");
        assert_eq!(pattern.capture_names(), ["host"]);
    }

    #[test]
    fn a_glob_that_is_none_says_why() {
        for glob in ["", "a.{b", "a.<1>", "a.[b"] {
            assert!(Pattern::compile(&Selector::Glob(glob.into())).is_err(), "{glob}");
        }
    }
}

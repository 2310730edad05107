//! Patterns over series names: Graphite globs with captures, and regular expressions. Both compile to one regex.
//!
//! Glob: `*` is any run of characters inside one path element (not empty when it is the whole element), `**` as a whole
//! element is any number of elements (also none, also empty ones as in `a..b`, so that `**` alone is every series), `?` is
//! one character, `[a-z]` a class (`[!a-z]` all else), `{a,b}` alternatives, `<name>` captures what `*` as a whole element
//! would match. A glob is anchored at both ends and is matched against the path, which is the part of a name before the
//! first `;`. A regex is not anchored and sees the whole name, tags included. Both see characters, not bytes.

use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// Largest compiled form of one pattern: far above any sensible one, far below what would hurt a node.
const PATTERN_BYTES_MAX: usize = 8 << 20;

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
        let (text, path_only) = translate(selector)?;
        RegexBuilder::new(&text)
            .size_limit(PATTERN_BYTES_MAX)
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

/// Several selectors asked at once, which costs little more than asking one.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    /// What they are asked about: the path.
    globs: Members,
    /// What they are asked about: the whole name.
    regexes: Members,
}

/// Patterns of one kind and their places in the list that the set was made of.
#[derive(Clone, Debug, Default)]
struct Members {
    set: RegexSet,
    places: Vec<usize>,
}

impl PatternSet {
    /// Compiles all of `selectors`.
    ///
    /// # Errors
    /// For every selector that does not compile, its place and the reason; or one error for the last place if all
    /// together are too large.
    pub fn compile<'s>(
        selectors: impl IntoIterator<Item = &'s Selector>,
    ) -> Result<PatternSet, Vec<(usize, PatternError)>> {
        let (mut globs, mut regexes) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let mut errors = Vec::new();
        for (place, selector) in selectors.into_iter().enumerate() {
            // Each is compiled alone as well: the set's own errors do not say which pattern they are about.
            match Pattern::compile(selector) {
                Ok(pattern) => {
                    let (texts, places) = if pattern.path_only { &mut globs } else { &mut regexes };
                    texts.push(pattern.regex.as_str().to_owned());
                    places.push(place);
                }
                Err(error) => errors.push((place, error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let build = |(texts, places): (Vec<String>, Vec<usize>)| {
            let limit = PATTERN_BYTES_MAX.saturating_mul(texts.len().max(1));
            let last = places.last().copied().unwrap_or_default();
            RegexSetBuilder::new(texts)
                .size_limit(limit)
                .build()
                .map(|set| Members { set, places })
                .map_err(|error| vec![(last, PatternError(error.to_string()))])
        };
        Ok(PatternSet { globs: build(globs)?, regexes: build(regexes)? })
    }

    /// The places of the selectors that select `name` (with its tags), in ascending order.
    pub fn matches(&self, name: &[u8]) -> Vec<usize> {
        let globs = self.globs.set.matches(path_of(name)).into_iter().map(|index| self.globs.places[index]);
        let regexes = self.regexes.set.matches(name).into_iter().map(|index| self.regexes.places[index]);
        let mut places: Vec<usize> = globs.chain(regexes).collect();
        places.sort_unstable();
        places
    }
}

/// The regular expression for a selector, and whether it is about the path only.
fn translate(selector: &Selector) -> Result<(String, bool), PatternError> {
    match selector {
        Selector::Glob(glob) => Ok((glob_to_regex(glob)?, true)),
        Selector::Regex(regex) => Ok((regex.clone(), false)),
    }
}

/// Translates a glob into an anchored regex.
fn glob_to_regex(glob: &str) -> Result<String, PatternError> {
    if glob.is_empty() {
        return Err(PatternError("an empty glob matches nothing; `**` matches every series".into()));
    }
    if glob.contains([';', ' ']) {
        return Err(PatternError(format!(
            "glob `{glob}`: a glob is about the path, which has no `;` and no space; use a regex to select by tags"
        )));
    }
    let mut out = String::from("^");
    let elements: Vec<&str> = glob.split('.').collect();
    let mut separator_owed = false;
    for (index, element) in elements.iter().enumerate() {
        let last = index + 1 == elements.len();
        if *element == "**" {
            match (separator_owed, last) {
                // `a.**`, `a.**.b`: any number of further elements.
                (true, _) => out.push_str("(?:\\.[^.]*)*"),
                // `**` alone.
                (false, true) => out.push_str(".+"),
                // `**.b`: what follows owes no dot.
                (false, false) => {
                    out.push_str("(?:[^.]*\\.)*");
                    continue;
                }
            }
            separator_owed = true;
            continue;
        }
        if separator_owed {
            out.push_str("\\.");
        }
        Element { glob, element, out: &mut out }.translate()?;
        separator_owed = true;
    }
    out.push('$');
    Ok(out)
}

/// One path element of a glob on its way into a regex.
struct Element<'g> {
    glob: &'g str,
    element: &'g str,
    out: &'g mut String,
}

impl Element<'_> {
    fn translate(mut self) -> Result<(), PatternError> {
        if self.element == "*" {
            self.out.push_str("[^.]+");
            return Ok(());
        }
        let mut chars = self.element.chars();
        let mut alternatives_open = false;
        while let Some(c) = chars.next() {
            match c {
                '*' => self.out.push_str("[^.]*"),
                '?' => self.out.push_str("[^.]"),
                '{' if alternatives_open => return Err(self.error("alternatives cannot be nested")),
                '{' => {
                    self.out.push_str("(?:");
                    alternatives_open = true;
                }
                '}' if alternatives_open => {
                    self.out.push(')');
                    alternatives_open = false;
                }
                '}' => return Err(self.error("`}` without its `{`; alternatives do not cross a dot")),
                ',' if alternatives_open => self.out.push('|'),
                '[' => self.class(until(&mut chars, ']'))?,
                '<' => self.capture(until(&mut chars, '>'))?,
                other => self.out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        if alternatives_open {
            return Err(self.error("`{` without its `}`; alternatives do not cross a dot"));
        }
        Ok(())
    }

    fn class(&mut self, class: Option<String>) -> Result<(), PatternError> {
        let Some(class) = class else { return Err(self.error("`[` without its `]`; a class does not cross a dot")) };
        let (negated, body) = class.strip_prefix('!').map_or((false, class.as_str()), |rest| (true, rest));
        if body.is_empty() {
            return Err(self.error("an empty class matches nothing"));
        }
        // A class that excludes must not take the dot either: it stays inside its element.
        self.out.push_str(if negated { "[^." } else { "[" });
        for c in body.chars() {
            if matches!(c, '\\' | '^' | '[' | '&' | '~') {
                self.out.push('\\');
            }
            self.out.push(c);
        }
        self.out.push(']');
        Ok(())
    }

    fn capture(&mut self, name: Option<String>) -> Result<(), PatternError> {
        let Some(name) = name else { return Err(self.error("`<` without its `>`; a capture does not cross a dot")) };
        let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !fits {
            return Err(self.error(&format!(
                "`<{name}>`: a capture's name is letters, digits and `_`, not starting with a digit"
            )));
        }
        self.out.push_str("(?P<");
        self.out.push_str(&name);
        self.out.push_str(">[^.]+)");
        Ok(())
    }

    fn error(&self, why: &str) -> PatternError {
        PatternError(format!("glob `{}`: {why}", self.glob))
    }
}

/// Takes the characters before `end`, and `end`; `None` if it does not come.
fn until(chars: &mut std::str::Chars<'_>, end: char) -> Option<String> {
    let mut text = String::new();
    for c in chars {
        if c == end {
            return Some(text);
        }
        text.push(c);
    }
    None
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
    fn two_stars_cross_elements_also_empty_ones() {
        check("**", &["a", "a.b.c", "a;k=v", "..", "é\u{a0}x"], &[""]);
        check("a.**", &["a", "a.b", "a.b.c", "a..b", "a."], &["ab", "b.a"]);
        check("a.**.z", &["a.z", "a.b.z", "a.b.c.z"], &["a.b", "az"]);
        check("**.z", &["z", "a.z", "a.b.z", ".z"], &["a.zz"]);
        check("a.**.**", &["a", "a.b.c"], &["ab"]);
    }

    #[test]
    fn classes_and_alternatives_work_inside_an_element() {
        check("cpu.{user,system}", &["cpu.user", "cpu.system"], &["cpu.idle"]);
        check("{a*,b}.c", &["a1.c", "b.c"], &["b1.c", "a.b.c"]);
        check("host[0-9]", &["host1"], &["hosta"]);
        check("host[!0-9]", &["hosta"], &["host1", "host."]);
        check("host[a^&&~b]", &["host^", "host&", "host~"], &["hostc"]);
    }

    #[test]
    fn characters_count_not_bytes() {
        check("caf?", &["café", "cafe"], &["caf", "cafés"]);
        check("caf[éè]", &["café"], &["cafe"]);
    }

    #[test]
    fn what_means_something_to_a_regex_means_itself_in_a_glob() {
        check("a+b|c(d)$\\", &["a+b|c(d)$\\"], &["aab", "a+b"]);
        check("a.b", &["a.b"], &["axb"]);
    }

    #[test]
    fn a_set_answers_as_its_members_do() {
        let selectors = [
            Selector::Regex("dc=1".into()),
            Selector::Glob("**".into()),
            Selector::Glob("b".into()),
            Selector::Regex("^a".into()),
        ];
        let set = PatternSet::compile(&selectors).expect("compiles");
        for (name, expected) in [("a;dc=1", vec![0, 1, 3]), ("b;x=y", vec![1, 2]), ("c", vec![1])] {
            assert_eq!(set.matches(name.as_bytes()), expected, "{name}");
        }
        assert!(PatternSet::compile(&[]).expect("an empty set compiles").matches(b"a").is_empty());
    }

    #[test]
    fn a_set_names_every_member_that_does_not_compile() {
        let selectors = [Selector::Regex("(".into()), Selector::Glob("a".into()), Selector::Glob("{".into())];
        let errors = PatternSet::compile(&selectors).expect_err("two are wrong");
        assert_eq!(errors.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 2]);
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
        for glob in
            ["", "a.{b", "a.b}", "{a,{b,c}}", "{a.b}", "a.<1>", "a.<b", "a.<>", "a.[b", "[]", "[!]", "[z-a]", "a;b=c"]
        {
            assert!(Pattern::compile(&Selector::Glob(glob.into())).is_err(), "{glob}");
        }
    }
}

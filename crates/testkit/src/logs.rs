//! Logs as a judge reads them: any WARN, ERROR or panic that the test did not announce fails it.

/// The lines of `text` that warn, report an error or tell of a panic, without those that contain an announced phrase.
/// The words are matched as whole words, so `errors=0` in a field is no error.
pub fn unannounced(text: &str, announced: &[&str]) -> Vec<String> {
    text.lines()
        .map(without_colours)
        .filter(|line| is_alarm(line))
        .filter(|line| !announced.iter().any(|phrase| line.contains(phrase)))
        .collect()
}

/// [`unannounced`], as an assertion on a whole log.
///
/// # Panics
/// When there is an unannounced line.
#[track_caller]
pub fn announced_only(name: &str, text: &str, announced: &[&str]) {
    let lines = unannounced(text, announced);
    assert!(lines.is_empty(), "{name} has {} unannounced lines:\n{}", lines.len(), lines.join("\n"));
}

fn is_alarm(line: &str) -> bool {
    const WORDS: [&str; 8] = ["WARN", "WARNING", "ERROR", "panicked", "Traceback", "[warning]", "[error]", "BUG:"];
    line.split_whitespace().any(|word| WORDS.contains(&word))
}

/// Cuts `ESC [ ... m`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(letter) = rest.next() {
        if letter == '\u{1b}' {
            let _colour: Option<char> = rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unannounced;

    #[track_caller]
    fn check(text: &str, announced: &[&str], expected: &[&str]) {
        assert_eq!(unannounced(text, announced), expected);
    }

    #[test]
    fn only_whole_words_alarm() {
        check("INFO errors=0 WARNS\n2026 WARN low disk\nERROR x", &[], &["2026 WARN low disk", "ERROR x"]);
    }

    #[test]
    fn announced_lines_are_left_out() {
        check("WARN low disk\nWARN peer gone", &["low disk"], &["WARN peer gone"]);
    }

    #[test]
    fn colours_do_not_hide_a_warning() {
        check("\u{1b}[33m WARN\u{1b}[0m x", &[], &[" WARN x"]);
    }
}

//! "Did you mean": the nearest of the words that would be right.

/// The candidate nearest to `word`, if it is near enough to be a slip of the fingers: at most one edit per three
/// characters, at least one. Of equally near candidates the first wins.
///
/// For the command line too, so that a node's name is suggested the same way as a key.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST).collect();
    let limit = (word.len() / 3).max(1);
    let mut best: Option<(usize, &'c str)> = None;
    for candidate in candidates {
        let distance = edits(&word, &candidate.to_lowercase().chars().take(LONGEST).collect::<Vec<_>>());
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are cut: the work is quadratic, and the text may be hostile.
const LONGEST: usize = 64;

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn edits(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut two_back = vec![0; width];
    let mut back: Vec<usize> = (0..width).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, to) in b.iter().enumerate() {
            let replaced = back[j] + usize::from(from != to);
            row[j + 1] = replaced.min(back[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to;
            if swapped {
                row[j + 1] = row[j + 1].min(two_back[j - 1] + 1);
            }
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, candidates: &[&str], expected: Option<&str>) {
        assert_eq!(nearest(word, candidates.iter().copied()), expected, "{word}");
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        check("lingr", &["batch", "linger"], Some("linger"));
        check("batsh", &["batch", "linger"], Some("batch"));
        check("Linger", &["linger"], Some("linger"));
        check("quora", &["quota", "sync"], Some("quota"));
        check("nodes", &["node", "store"], Some("node"));
        check("carbno", &["carbon", "graphite"], Some("carbon"));
        check("colour", &["linger", "batch"], None);
        check("", &["a"], Some("a"));
        check("xy", &[], None);
    }
}

//! Tags of series names: the one normal form, so that equal series have equal bytes.
//!
//! `path;key=value;key=value`, with the tags sorted as the byte strings `key=value`, each key once. It follows carbon's
//! `TaggedSeries` (COMPAT 4.4): of a key given twice the later value counts, a tag named `name` is swallowed (it would
//! shadow the path), a leading run of `~` is cut from the path, a key has none of `;!^=`, a value does not start with
//! `~`, and neither is empty. Where carbon keeps a name with bad tags as it is, we refuse it: two spellings of one
//! series would reach different places.

use std::ops::Range;

/// Working memory for names that have to be rewritten, to be used again for every name.
#[derive(Debug, Default)]
pub struct Scratch {
    name: Vec<u8>,
    tags: Vec<Tag>,
}

/// Where one tag stands in the name that is being put in order.
#[derive(Clone, Debug)]
struct Tag {
    whole: Range<usize>,
    key_bytes: usize,
}

/// Why a name has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("nothing is left of the name before its tags")]
    NoPath,
    #[error("a tag needs a key without any of `;!^=` and a value that does not start with `~`, neither of them empty")]
    Tag,
}

/// The normal form of `name`: itself where it is normal already (or has no tags), else written to `scratch`.
///
/// # Errors
/// When there is no path, or a tag is none.
#[inline]
pub fn normalise<'a>(name: &'a [u8], scratch: &'a mut Scratch) -> Result<&'a [u8], BadName> {
    let cut = name.iter().take_while(|byte| **byte == b'~').count();
    let name = &name[cut..];
    let path = &name[..memchr::memchr(b';', name).unwrap_or(name.len())];
    if path.is_empty() {
        return Err(BadName::NoPath);
    }
    if path.len() == name.len() || is_normal(&name[path.len()..])? {
        return Ok(name);
    }
    rewrite(name, path.len(), scratch);
    Ok(&scratch.name)
}

/// Checks every tag. `Ok(true)` if they are also in order, without duplicates and without a `name`.
///
/// `tags`: begins with `;`.
fn is_normal(tags: &[u8]) -> Result<bool, BadName> {
    let mut normal = true;
    let mut previous: Option<(&[u8], &[u8])> = None;
    for tag in tags[1..].split(|byte| *byte == b';') {
        let key = key_of(tag)?;
        normal &= key != b"name" && previous.is_none_or(|(last_key, last_tag)| last_key != key && last_tag < tag);
        previous = Some((key, tag));
    }
    Ok(normal)
}

/// The key of `tag`, which is the text between two `;`.
fn key_of(tag: &[u8]) -> Result<&[u8], BadName> {
    let equals = memchr::memchr(b'=', tag).ok_or(BadName::Tag)?;
    let (key, value) = (&tag[..equals], &tag[equals + 1..]);
    let key_fits = !key.is_empty() && !key.iter().any(|byte| matches!(byte, b'!' | b'^'));
    let value_fits = value.first().is_some_and(|first| *first != b'~');
    if key_fits && value_fits { Ok(key) } else { Err(BadName::Tag) }
}

/// Writes the normal form of `name`, whose tags were checked and begin at `path_bytes`, to `scratch.name`.
fn rewrite(name: &[u8], path_bytes: usize, scratch: &mut Scratch) {
    let Scratch { name: out, tags } = scratch;
    tags.clear();
    let mut start = path_bytes + 1;
    for tag in name[start..].split(|byte| *byte == b';') {
        let key_bytes = memchr::memchr(b'=', tag).unwrap_or(tag.len());
        tags.push(Tag { whole: start..start + tag.len(), key_bytes });
        start += tag.len() + 1;
    }
    // By key with its `=`, which is the order of whole tags once keys are unique; a key given twice in order of
    // appearance, so that its last tag is the one that counts.
    let key = |tag: &Tag| &name[tag.whole.start..(tag.whole.start + tag.key_bytes + 1).min(tag.whole.end)];
    tags.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.whole.start.cmp(&b.whole.start)));
    out.clear();
    out.extend_from_slice(&name[..path_bytes]);
    for (index, tag) in tags.iter().enumerate() {
        let shadowed = tags.get(index + 1).is_some_and(|next| key(next) == key(tag));
        if !shadowed && key(tag) != b"name=" {
            out.push(b';');
            out.extend_from_slice(&name[tag.whole.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(name: &str, expected: Result<&str, BadName>) {
        let mut scratch = Scratch::default();
        let found = normalise(name.as_bytes(), &mut scratch).map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(found, expected.map(str::to_owned), "{name}");
    }

    #[test]
    fn tags_are_sorted_as_byte_strings_with_their_equals_sign() {
        check("m;a-b=3;a=1;ab=2", Ok("m;a-b=3;a=1;ab=2"));
        check("m;ab=2;a=1;a-b=3", Ok("m;a-b=3;a=1;ab=2"));
        check("m;b=1;B=2;a=3", Ok("m;B=2;a=3;b=1"));
        check("disk.used;rack=a1;datacenter=dc1", Ok("disk.used;datacenter=dc1;rack=a1"));
    }

    #[test]
    fn the_later_of_two_equal_keys_counts() {
        check("m;a=1;a=2", Ok("m;a=2"));
        check("m;a=2;b=3;a=1", Ok("m;a=1;b=3"));
        check("m;a=1;a=1", Ok("m;a=1"));
    }

    #[test]
    fn a_tag_called_name_is_swallowed_and_leading_tildes_are_cut() {
        check("m;name=x", Ok("m"));
        check("m;a=1;name=x", Ok("m;a=1"));
        check("m;names=x", Ok("m;names=x"));
        check("~~m;a=1", Ok("m;a=1"));
        check("~m", Ok("m"));
        check("m~;a=b~", Ok("m~;a=b~"));
    }

    #[test]
    fn a_value_may_hold_what_a_key_may_not() {
        check("m;a=b=c", Ok("m;a=b=c"));
        check("m;a=!^", Ok("m;a=!^"));
    }

    #[test]
    fn a_bad_tag_is_refused_wherever_it_stands() {
        for name in
            ["m;", "m;a", "m;=1", "m;a=", "m;a=~1", "m;!a=1", "m;a^=1", "m;a=1;", "m;;a=1", "m;name=", "m;b=1;a"]
        {
            check(name, Err(BadName::Tag));
        }
    }

    #[test]
    fn tags_without_a_path_are_refused() {
        for name in ["", "~", "~~~", ";a=1", "~;a=1"] {
            check(name, Err(BadName::NoPath));
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_normal_and_ignores_the_order_of_different_keys(
            tags in prop::collection::btree_map("[a-cA-C!-]{1,3}", "[a-c=;~]{0,3}", 0..6),
            turn in 0..6_usize,
        ) {
            let ordered: Vec<String> = tags.iter().map(|(key, value)| format!(";{key}={value}")).collect();
            let mut turned = ordered.clone();
            turned.rotate_left(turn % ordered.len().max(1));
            let (one, other) = (format!("m{}", ordered.concat()), format!("m{}", turned.concat()));
            let (mut left, mut right, mut again) = (Scratch::default(), Scratch::default(), Scratch::default());
            let left = normalise(one.as_bytes(), &mut left);
            let right = normalise(other.as_bytes(), &mut right);
            prop_assert_eq!(left.is_ok(), right.is_ok());
            // A `;` inside a value makes further tags, whose keys may be given twice: then the order decides.
            if !tags.values().any(|value| value.contains(';')) {
                prop_assert_eq!(left, right);
            }
            if let Ok(name) = left {
                prop_assert_eq!(normalise(name, &mut again), Ok(name));
            }
        }
    }
}

//! Output names with holes.
//!
//! A template is a name in Graphite's tagged form, `path` or `path;key=value;...`, in which `{function}` stands for the
//! function, `{name}` for a named capture of the selector and `{1}` for a numbered one. Keys of tags are literal.
//!
//! **A captured value cannot break a name.** In it `;`, blanks and control characters become `_`, dots at its ends are
//! cut off, a leading `~` becomes `_`, and nothing at all becomes `_`. Inner dots stay: they may be wanted. Holes are
//! filled in one pass, so braces in a value mean nothing.

use regex::bytes::Captures;

use crate::pattern::Pattern;

/// Stands in an [`super::OutputKey`]'s name for the function. The line parser lets no control character into a name.
pub const FUNCTION_HOLE: u8 = 0;
const COMPLETE: &[u8] = b"__complete";

/// One piece of a template. Two templates are the same if their pieces are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Piece {
    Literal(Vec<u8>),
    Function,
    Named(String),
    Numbered(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template and checks its holes against the captures of `pattern`.
    pub(super) fn parse(text: &str, pattern: &Pattern) -> Result<Template, String> {
        let pieces = split_pieces(text)?;
        for piece in &pieces {
            check_hole(piece, pattern)?;
        }
        check_names(&pieces)?;
        Ok(Template { pieces })
    }

    pub(super) fn has_function(&self) -> bool {
        self.pieces.contains(&Piece::Function)
    }

    /// The keys of the template's own tags.
    pub(super) fn tag_keys(&self) -> Vec<Vec<u8>> {
        self.skeleton().split(|byte| *byte == b';').skip(1).map(|tag| key_of(tag).to_vec()).collect()
    }

    /// The pieces with `function` filled in and neighbouring literals joined: equal for two templates whose names are
    /// equal whatever is captured.
    pub(super) fn with_function(&self, function: &[u8]) -> Vec<Piece> {
        let mut out: Vec<Piece> = Vec::new();
        for piece in &self.pieces {
            let literal = match piece {
                Piece::Literal(text) => text.as_slice(),
                Piece::Function => function,
                Piece::Named(_) | Piece::Numbered(_) => {
                    out.push(piece.clone());
                    continue;
                }
            };
            if let Some(Piece::Literal(last)) = out.last_mut() {
                last.extend_from_slice(literal);
            } else {
                out.push(Piece::Literal(literal.to_vec()));
            }
        }
        out
    }

    /// The name for one matching series, tags in normal form, [`FUNCTION_HOLE`] for the function. `tags`: the group_by
    /// tags of the input, as `key=value`.
    pub(super) fn expand<'n>(&self, captures: &Captures<'_>, tags: impl Iterator<Item = &'n [u8]>) -> Vec<u8> {
        let mut filled = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled.extend_from_slice(text),
                Piece::Function => filled.push(FUNCTION_HOLE),
                Piece::Named(name) => {
                    put_captured(&mut filled, captures.name(name).map_or(b"", |value| value.as_bytes()))
                }
                Piece::Numbered(number) => {
                    put_captured(&mut filled, captures.get(*number).map_or(b"", |value| value.as_bytes()));
                }
            }
        }
        let mut parts = filled.split(|byte| *byte == b';');
        let path = parts.next().unwrap_or_default();
        let mut all_tags: Vec<&[u8]> = parts.collect();
        // One by one: their lifetimes differ.
        for tag in tags {
            all_tags.push(tag);
        }
        all_tags.sort_unstable();
        let mut name = path.to_vec();
        for tag in all_tags {
            name.push(b';');
            name.extend_from_slice(tag);
        }
        name
    }

    /// The template with `x` in each capture's hole.
    pub(super) fn sample(&self, function: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Function => out.extend_from_slice(function),
                Piece::Named(_) | Piece::Numbered(_) => out.push(b'x'),
            }
        }
        out
    }

    fn skeleton(&self) -> Vec<u8> {
        self.sample(b"x")
    }
}

/// Writes an output's name: `name` with `function` in its hole.
pub(super) fn fill_function(name: &[u8], function: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut parts = name.split(|byte| *byte == FUNCTION_HOLE);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(function);
        out.extend_from_slice(part);
    }
}

/// Writes the name of a key's completeness series: `__complete` in the function's hole, or behind the path.
pub(super) fn fill_complete(name: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr(FUNCTION_HOLE, name).is_some() {
        fill_function(name, COMPLETE, out);
        return;
    }
    let path = crate::pattern::path_of(name);
    out.clear();
    out.extend_from_slice(path);
    out.push(b'.');
    out.extend_from_slice(COMPLETE);
    out.extend_from_slice(&name[path.len()..]);
}

fn split_pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (hole, after) = after.split_once('}').ok_or_else(|| format!("`{{` without its `}}` in output `{text}`"))?;
        push_literal(&mut pieces, literal, text)?;
        pieces.push(match hole.parse::<usize>() {
            Ok(number) => Piece::Numbered(number),
            Err(_) if hole == "function" => Piece::Function,
            Err(_) => Piece::Named(hole.to_owned()),
        });
        rest = after;
    }
    push_literal(&mut pieces, rest, text)?;
    Ok(pieces)
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &str, text: &str) -> Result<(), String> {
    if literal.contains('}') {
        return Err(format!("`}}` without its `{{` in output `{text}`"));
    }
    if literal.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("output `{text}` has a blank or control character; a series name cannot"));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.as_bytes().to_vec()));
    }
    Ok(())
}

fn check_hole(piece: &Piece, pattern: &Pattern) -> Result<(), String> {
    match piece {
        Piece::Literal(_) | Piece::Function => Ok(()),
        Piece::Named(name) => {
            let known = pattern.capture_names();
            if known.contains(name) {
                return Ok(());
            }
            let choice = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(format!(
                "the output has `{{{name}}}`, but the selector captures no `{name}` (it captures by name: {choice})"
            ))
        }
        Piece::Numbered(0) => Err("the output has `{0}`; captures count from 1".to_owned()),
        Piece::Numbered(number) if *number > pattern.capture_count() => {
            Err(format!("the output has `{{{number}}}`, but the selector has {} captures", pattern.capture_count()))
        }
        Piece::Numbered(_) => Ok(()),
    }
}

/// Checks path and tags of the template's literal part, holes standing for something that is not empty.
fn check_names(pieces: &[Piece]) -> Result<(), String> {
    let skeleton = Template { pieces: pieces.to_vec() }.skeleton();
    let mut parts = skeleton.split(|byte| *byte == b';');
    let path = parts.next().unwrap_or_default();
    if path.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err("the output's path is empty or has an empty element".to_owned());
    }
    if path.starts_with(b"~") {
        return Err("the output's path starts with `~`".to_owned());
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    for tag in parts {
        let key = key_of(tag);
        let value = tag.get(key.len() + 1..).unwrap_or_default();
        let key_fits = !key.is_empty() && !key.iter().any(|byte| b"!^".contains(byte)) && key != b"name";
        if !key_fits || value.is_empty() || value.starts_with(b"~") {
            let tag = String::from_utf8_lossy(tag);
            return Err(format!(
                "`;{tag}` is no tag: it must be `;key=value` with neither empty, no `!^` in the key, no leading `~` in the value"
            ));
        }
        if keys.contains(&key) {
            return Err(format!("the output has the tag `{}` twice", String::from_utf8_lossy(key)));
        }
        keys.push(key);
    }
    check_literal_keys(pieces)
}

/// A hole in a key could make two keys equal.
fn check_literal_keys(pieces: &[Piece]) -> Result<(), String> {
    let mut in_key = false;
    for piece in pieces {
        match piece {
            Piece::Literal(text) => {
                for byte in text {
                    in_key = if in_key { *byte != b'=' } else { *byte == b';' };
                }
            }
            Piece::Function | Piece::Named(_) | Piece::Numbered(_) if in_key => {
                return Err("a hole may stand in the path or in the value of a tag, not in a tag's key".to_owned());
            }
            Piece::Function | Piece::Named(_) | Piece::Numbered(_) => {}
        }
    }
    Ok(())
}

/// The key of `key=value`.
pub(super) fn key_of(tag: &[u8]) -> &[u8] {
    memchr::memchr(b'=', tag).map_or(tag, |at| &tag[..at])
}

fn put_captured(out: &mut Vec<u8>, value: &[u8]) {
    let start = value.iter().position(|byte| *byte != b'.').unwrap_or(value.len());
    let end = value.iter().rposition(|byte| *byte != b'.').map_or(start, |last| last + 1);
    let value = &value[start..end];
    if value.is_empty() {
        out.push(b'_');
        return;
    }
    for (index, byte) in value.iter().enumerate() {
        let breaks = *byte == b';' || *byte <= b' ' || *byte == 0x7f || (index == 0 && *byte == b'~');
        out.push(if breaks { b'_' } else { *byte });
    }
}

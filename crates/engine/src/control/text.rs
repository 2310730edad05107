//! How the orders are written, in the file and on links:
//!
//! ```text
//! spillway control 1
//! <key> TAB <value> TAB <version> TAB <origin> TAB <when> TAB <by>      one line an entry, keys ascending
//! crc32c 0123abcd                                                       of everything before this line
//! ```

use super::{Control, ENTRIES_MAX, Entry, FIELD_MAX};

const FORMAT: u32 = 1;
const HEAD: &str = "spillway control ";
const TAIL: &str = "crc32c ";

/// Why a text is not taken for orders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("orders of format {format}; this version reads format {FORMAT}: run the version that wrote them")]
    Newer { format: u32 },
    #[error("not the orders of a cluster: {what}")]
    Damaged { what: &'static str },
}

/// A field as it may be written: no control characters, at most [`FIELD_MAX`] bytes.
pub(super) fn clean(field: &str) -> String {
    let mut clean: String = field.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.truncate(clean.floor_char_boundary(FIELD_MAX));
    clean
}

impl Control {
    /// The text.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEAD}{FORMAT}\n");
        for (key, entry) in &self.entries {
            let Entry { version, origin, value, when, by } = entry;
            text.push_str(&format!("{key}\t{value}\t{version}\t{origin}\t{when}\t{by}\n"));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{TAIL}{crc:08x}\n"));
        text
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When it is of a newer format, or damaged.
    pub fn decode(text: &str) -> Result<Control, DecodeError> {
        let damaged = |what| DecodeError::Damaged { what };
        let (head, _) = text.split_once('\n').ok_or(damaged("no first line"))?;
        let format = head.strip_prefix(HEAD).and_then(|format| format.parse().ok());
        let format: u32 = format.ok_or(damaged("it does not begin with `spillway control`"))?;
        if format > FORMAT {
            return Err(DecodeError::Newer { format });
        }
        let (before, tail) = text.trim_end_matches('\n').rsplit_once('\n').ok_or(damaged("no last line"))?;
        let crc = tail.strip_prefix(TAIL).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        if crc != Some(crc32c::crc32c(format!("{before}\n").as_bytes())) {
            return Err(damaged("the checksum does not fit"));
        }
        let mut control = Control::default();
        for line in before.lines().skip(1) {
            let (key, entry) = parse_line(line).ok_or(damaged("a line is no entry"))?;
            control.entries.insert(key, entry);
        }
        if control.entries.len() > ENTRIES_MAX {
            return Err(damaged("more entries than there may be"));
        }
        Ok(control)
    }
}

fn parse_line(line: &str) -> Option<(String, Entry)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [key, value, version, origin, when, by] = fields.as_slice() else { return None };
    if fields.iter().any(|field| clean(field) != **field) {
        return None;
    }
    let entry = Entry {
        version: version.parse().ok()?,
        origin: (*origin).to_owned(),
        value: (*value).to_owned(),
        when: when.parse().ok()?,
        by: (*by).to_owned(),
    };
    Some(((*key).to_owned(), entry))
}

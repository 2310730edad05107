//! One piece of damage to a value, as six bytes of the input say it.

/// Cuts, lengthens, or changes one byte; `at`: where, modulo the length.
pub fn change(bytes: &mut Vec<u8>, how: u8, at: usize, byte: u8) {
    let at = at % bytes.len().max(1);
    match how % 4 {
        0 => bytes.truncate(at),
        1 => bytes.push(byte),
        _ => {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
    }
}

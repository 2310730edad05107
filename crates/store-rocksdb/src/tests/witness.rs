use super::Folder;
use crate::Witness;
use std::fs;

#[test]
fn a_witness_says_what_was_written_last_also_when_opened_again() {
    let folder = Folder::new();
    let path = folder.0.join("witness");
    let mut witness = Witness::open(&path).unwrap();
    assert_eq!(witness.read(), None);
    for said in [&b"one"[..], b"", b"three", &[7; 65_512]] {
        witness.write(said).unwrap();
        assert_eq!(witness.read().as_deref(), Some(said));
        assert_eq!(Witness::open(&path).unwrap().read().as_deref(), Some(said));
    }
    assert!(witness.write(&[0; 65_513]).is_err());
    assert_eq!(Witness::open(&path).unwrap().read().map(|said| said.len()), Some(65_512));
}

#[test]
fn damage_of_one_slot_leaves_what_the_other_says() {
    let folder = Folder::new();
    let path = folder.0.join("witness");
    let mut witness = Witness::open(&path).unwrap();
    witness.write(b"the first").unwrap();
    witness.write(b"the second").unwrap();
    let whole = fs::read(&path).unwrap();
    let check = |bytes: &[u8], expected: &[Option<&[u8]>], what: &str| {
        fs::write(&path, bytes).unwrap();
        let said = Witness::open(&path).unwrap().read();
        assert!(expected.contains(&said.as_deref()), "{what}: {said:?}");
    };
    let (first, second): (Option<&[u8]>, Option<&[u8]>) = (Some(b"the first"), Some(b"the second"));
    for at in 0..whole.len() {
        // The slots hold these; what lies between them may be anything.
        if (50..65_530).contains(&at) {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        let in_second = (65_536..65_536 + 34).contains(&at);
        check(&flipped, &[if in_second { first } else { second }], &format!("byte {at} flipped"));
        check(&whole[..at], &[None, first], &format!("cut at {at}"));
    }
    check(&[], &[None], "empty");
    check(&[0x55; 200_000], &[None], "overwritten");
    let mut witness = Witness::open(&path).unwrap();
    witness.write(b"again").unwrap();
    assert_eq!(Witness::open(&path).unwrap().read().as_deref(), Some(&b"again"[..]));
}

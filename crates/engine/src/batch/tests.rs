use proptest::prelude::*;

use super::*;

const ME: Incarnation = Incarnation { sender: 0x1122_3344_5566_7788, epoch: 7, nonce: 42 };

fn sample() -> Batch {
    let mut builder = Builder::new(PartitionSet::default().with(3).with(9), 64);
    builder.append(b"a.b 1 1700000000\n", 1, UnixSeconds(1_700_000_000), UnixSeconds(1_700_000_000));
    builder.append(b"a.c 2.5 1700000009\n", 1, UnixSeconds(1_700_000_009), UnixSeconds(1_700_000_009));
    let claims = [Claim { partition: 3, from: 2 }, Claim { partition: 9, from: 5 }];
    builder.seal(ME, 5, Versions { rules: 11, map: 12 }, &claims)
}

#[test]
fn what_is_sealed_decodes_to_the_same() {
    let batch = sample();
    let again = Batch::decode(batch.bytes().clone()).expect("decodes");
    assert_eq!(again.header(), batch.header());
    assert_eq!(again.body(), b"a.b 1 1700000000\na.c 2.5 1700000009\n");
    assert_eq!(again.header().points, 2);
    assert_eq!(again.header().min_ts, UnixSeconds(1_700_000_000));
    assert_eq!(again.header().claim(9), Some(5));
    assert_eq!(again.header().claim(4), None);
}

#[test]
fn the_layout_is_the_one_drawn_above() {
    let golden = concat!(
        "53504231",
        "5400",
        "0000",
        "8877665544332211",
        "07000000",
        "05000000",
        "2a00000000000000",
        "0b00000000000000",
        "0c000000",
        "02000000",
        "00f15365",
        "09f15365",
        "24000000",
    );
    let hex: String = sample().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.starts_with(golden), "{hex}");
    assert_eq!(hex.get(64 * 2..(64 + 4 + 12) * 2), Some("02000000030002000000090005000000"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = sample().bytes().to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(Batch::decode(Bytes::from(damaged)).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_partition_set_lists_what_was_put_in() {
    let set = PartitionSet::default().with(0).with(63).with(64);
    assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63]);
    assert_eq!(PartitionSet::all(16).len(), 16);
    assert_eq!(PartitionSet::all(64).len(), 64);
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..120) {
        drop(Batch::decode(Bytes::from(bytes)));
        let mut real = sample().bytes().to_vec();
        real.truncate(cut);
        prop_assert!(Batch::decode(Bytes::from(real)).is_err());
    }
}

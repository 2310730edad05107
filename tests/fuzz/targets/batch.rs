//! Any bytes where a batch should be: no panic, nothing taken that is not exactly one batch, and no single flipped bit
//! of a good batch goes unnoticed.
#![no_main]

use bytes::Bytes;
use engine::batch::{Batch, Builder, Claim, Incarnation, PartitionSet, Versions};
use engine::time::UnixSeconds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(batch) = Batch::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(batch.bytes().as_ref(), input, "a batch is all of its bytes");
        assert!(!batch.header().partitions().is_empty());
    }

    let Some((head, body)) = input.split_at_checked(16) else { return };
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let partitions = PartitionSet(u64::from(number(0)).max(1));
    let (seq, flip) = (number(4), number(8) as usize);
    let incarnation = Incarnation { sender: u64::from(number(12)), epoch: number(4), nonce: 7 };
    let claims: Vec<Claim> = partitions.iter().map(|partition| Claim { partition, from: seq / 2 }).collect();
    let mut builder = Builder::new(partitions, body.len());
    builder.append(body, 1, UnixSeconds(1), UnixSeconds(2));
    let sealed = builder.seal(incarnation, seq, Versions::default(), &claims);
    let again = Batch::decode(sealed.bytes().clone()).expect("what was sealed is a batch");
    assert_eq!((again.header(), again.body()), (sealed.header(), body));

    let mut damaged = sealed.bytes().to_vec();
    let bit = flip % (damaged.len() * 8);
    damaged[bit / 8] ^= 1 << (bit % 8);
    assert!(Batch::decode(Bytes::from(damaged)).is_err(), "bit {bit} was flipped");
});

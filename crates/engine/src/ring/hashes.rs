//! The hash functions of the rings. They are fixed for ever: they say where data lies.

use md5::{Digest, Md5};

/// carbon's position: the first two bytes of the MD5 sum, big endian.
pub(super) fn carbon_position(key: &[u8]) -> u16 {
    let digest = Md5::digest(key);
    u16::from_be_bytes([digest[0], digest[1]])
}

/// FNV-1a with 32 bits.
pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// FNV-1a with 64 bits.
pub(super) fn fnv1a_64(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// FNV-1a with 32 bits, folded to 16.
pub(super) fn fnv1a_position(key: &[u8]) -> u16 {
    let hash = fnv1a_32(key).to_be_bytes();
    u16::from_be_bytes([hash[0], hash[1]]) ^ u16::from_be_bytes([hash[2], hash[3]])
}

/// The bucket of `key` among `buckets` (at least 1) by Lamping and Veach, "A fast, minimal memory, consistent hash
/// algorithm", 2014.
pub(super) fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[allow(clippy::cast_precision_loss, reason = "the algorithm is defined on doubles; both are below 2^53")]
        let leap = (bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; cut as the algorithm says"
        )]
        let leap = leap as usize;
        next = leap;
    }
    bucket
}

/// The hash that the next replica is jumped to with: xorshift64*.
pub(super) fn next_hash(mut hash: u64) -> u64 {
    hash ^= hash >> 12;
    hash ^= hash << 25;
    hash ^= hash >> 27;
    hash.wrapping_mul(2_685_821_657_736_338_717)
}

//! Randomness of the operating system, for identities and for jitter.

use std::io;

/// A random number from the operating system; under `--cfg sim_net` the next one of the simulation's seed.
///
/// # Errors
/// When the kernel gives no randomness (no `getrandom` in this sandbox).
pub fn random_u64() -> io::Result<u64> {
    #[cfg(sim_net)]
    return Ok(crate::simulated::random_u64());
    #[cfg(not(sim_net))]
    from_kernel()
}

#[cfg(not(sim_net))]
fn from_kernel() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(u64::from_ne_bytes(bytes))
}

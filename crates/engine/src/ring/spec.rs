//! What an operator says of a plain Graphite destination.

/// How the addresses of one store share the series. Definitions and test vectors are in `ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingKind {
    CarbonCh,
    CarbonChCcr,
    Fnv1aCh,
    JumpFnv1aCh,
}

/// One address of a store, as the operator wrote it: host and port are part of some rings' node keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAddress {
    pub host: String,
    pub port: u16,
    /// `host:port=instance` in the file.
    pub instance: Option<String>,
}

/// A plain Graphite destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    pub name: String,
    pub addresses: Vec<StoreAddress>,
    pub ring: RingKind,
    /// How many different addresses get each series; 1..=addresses.
    pub replicas: usize,
}

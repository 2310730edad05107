//! The root package has no code of its own: it owns the binaries, `tests/` and `benches/`.

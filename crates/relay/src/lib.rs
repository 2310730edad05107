//! The relay's shell.

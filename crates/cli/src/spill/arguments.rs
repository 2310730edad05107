//! The arguments of `spillway spill`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SpillCommand {
    /// Mode, size, lanes and what was put aside; the abnormal first
    Stat {
        /// This relay only
        node: Option<String>,
    },
    /// The records that wait
    Ls {
        /// This relay only
        node: Option<String>,
        /// This lane only: its destination or its number
        #[arg(long)]
        lane: Option<String>,
        /// At most so many of each lane, the oldest first
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },
    /// Read every record and its checksum
    Verify {
        /// This relay only
        node: Option<String>,
    },
    /// Copy the records of a relay that wait into a file
    Export {
        node: String,
        /// Must not exist yet
        file: PathBuf,
        /// This lane only: its destination or its number
        #[arg(long)]
        lane: Option<String>,
    },
    /// Give the records of a file to a relay, under their old identities: what was merged already stays merged once
    Import { node: String, file: PathBuf },
}

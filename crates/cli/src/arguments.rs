//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::console;
use crate::exit;
use crate::health::Health;
use crate::node::Node;
use crate::replay::Replay;
use crate::rollout::Rollout;
use crate::spill::SpillCommand;

/// Runs and operates a Spillway cluster.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Cluster file [default: $SPILLWAY_CONFIG, ./spillway.toml, /etc/spillway/spillway.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File with the token to show to nodes, its first one [default: auth.operate of the cluster file, else auth.read]
    #[arg(long, global = true, value_name = "FILE", env = "SPILLWAY_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Answer in JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all nodes of the cluster file in this process
    Up {
        /// Only this node; may be given several times
        #[arg(long, value_name = "NAME")]
        node: Vec<String>,
    },
    /// What every node says of itself, the abnormal ones first
    Status,
    /// The cluster on one screen, drawn anew every second, with keys for replay, health modes and drains
    Top,
    /// The cluster as a web page, with orders after a preview; for one operator on this machine
    Console(console::Options),
    /// The books of every node, and whether they balance
    Ledger,
    /// Who gets traffic from whom and why, and the mode in which that is decided
    Health(Health),
    /// Take a node out of its pool, and let it in again
    Node(Node),
    /// Whether a node may be restarted now
    #[command(subcommand)]
    Rollout(Rollout),
    /// See and steer the replay of what could not be delivered
    Replay(Replay),
    /// Look into the spills of the relays, and carry them
    #[command(subcommand)]
    Spill(SpillCommand),
    /// Look into a cluster file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What would become of a line: how it parses, where it goes, what is computed of it
    Explain {
        /// A Graphite line, such as 'web.a.requests 3 1700000000'
        #[arg(value_name = "LINE", required = true, num_args = 1.., allow_negative_numbers = true)]
        line: Vec<String>,
    },
    /// Print what a shell needs to complete this command line; the shell's manual says where to put it
    Completions { shell: Shell },
    /// Write the man pages of this command and of all below it into a directory
    Man {
        /// Made if it is not there; files of these names are replaced
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that is wrong with it
    Check,
    /// Print every value in effect and who set it: the default, or a line of the file; and who chose the file
    Show,
}

/// Those that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

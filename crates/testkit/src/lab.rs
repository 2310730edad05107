//! A lab of network namespaces around one bridge, in which packets can vanish: the only way to let a peer die as a
//! machine dies, without a reset, a FIN or an ICMP message.
//!
//! The test itself stands in the root namespace and reaches every space at its address, so admin APIs, sinks and feeds
//! need no special care. Everything is named after the test's process and removed when the lab is dropped; what a killed
//! test has left behind, the next lab removes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use crate::run::{run, sh};

/// Bridges and namespaces of labs are named with this, the process id, and a number.
const PREFIX: &str = "spw";

/// A bridge with its spaces.
#[derive(Debug)]
pub struct Lab {
    bridge: String,
    /// The third byte of all addresses.
    net: u8,
    spaces: Vec<Space>,
}

/// A network namespace with one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// As `ip netns` knows it.
    pub name: String,
    pub ip: IpAddr,
}

impl Lab {
    /// `count` spaces.
    ///
    /// # Errors
    /// Why this machine has no network namespaces for us: not root, or no such feature.
    pub fn new(count: u8) -> Result<Lab, String> {
        remove_orphans();
        let pid = std::process::id();
        #[allow(clippy::cast_possible_truncation, reason = "below 250")]
        let net = (pid % 250) as u8;
        let bridge = format!("{PREFIX}{pid}b");
        sh(&format!("ip link add {bridge} type bridge"))?;
        let mut lab = Lab { bridge, net, spaces: Vec::new() };
        let bridge = lab.bridge.clone();
        sh(&format!("ip addr add {}/24 dev {bridge}", lab.root()))?;
        sh(&format!("ip link set {bridge} up"))?;
        for number in 1..=count {
            let (name, outer) = (format!("{PREFIX}{pid}n{number}"), format!("{PREFIX}{pid}v{number}"));
            let ip = lab.ip(number);
            sh(&format!("ip netns add {name}"))?;
            lab.spaces.push(Space { name: name.clone(), ip });
            sh(&format!("ip link add {outer} type veth peer name eth0 netns {name}"))?;
            sh(&format!("ip link set {outer} master {bridge}"))?;
            sh(&format!("ip link set {outer} up"))?;
            sh(&format!("ip -n {name} addr add {ip}/24 dev eth0"))?;
            sh(&format!("ip -n {name} link set eth0 up"))?;
            sh(&format!("ip -n {name} link set lo up"))?;
        }
        Ok(lab)
    }

    /// The root namespace's address on the bridge.
    pub fn root(&self) -> IpAddr {
        self.ip(254)
    }

    /// The spaces, in order.
    pub fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    fn ip(&self, number: u8) -> IpAddr {
        Ipv4Addr::new(10, 201, self.net, number).into()
    }
}

impl Space {
    /// `program`, to be started inside.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// From now on every packet from or to this space vanishes, but those of `spared` TCP ports of its own.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn vanish(&self, spared: &[u16]) -> Result<(), String> {
        let ports: Vec<String> = spared.iter().map(u16::to_string).collect();
        let (mut spare_in, mut spare_out) = (String::new(), String::new());
        if !ports.is_empty() {
            spare_in = format!("tcp dport {{ {} }} accept;", ports.join(", "));
            spare_out = format!("tcp sport {{ {} }} accept;", ports.join(", "));
        }
        // ARP is not IP: the table of neighbours stays, as when a machine hangs.
        self.nft(&format!(
            "flush ruleset\ntable ip lost {{\n\
             chain i {{ type filter hook input priority 0; iif lo accept; {spare_in} drop; }}\n\
             chain o {{ type filter hook output priority 0; oif lo accept; {spare_out} drop; }}\n}}\n"
        ))
    }

    /// Packets go through again.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn heal(&self) -> Result<(), String> {
        self.nft("flush ruleset\n")
    }

    fn nft(&self, rules: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "nft", rules]);
        run(command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut failed = Vec::new();
        for space in &self.spaces {
            failed.extend(sh(&format!("ip netns del {}", space.name)).err());
        }
        failed.extend(sh(&format!("ip link del {}", self.bridge)).err());
        if !failed.is_empty() && !std::thread::panicking() {
            panic!("the lab was not removed: {failed:?}");
        }
    }
}

/// Removes labs of processes that are gone.
fn remove_orphans() {
    let listed = |arguments: &[&str]| -> Vec<String> {
        let output = Command::new("ip").args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().filter_map(orphan).collect()
    };
    for name in listed(&["netns", "list"]) {
        // Another lab may be removing it as well; what stays is found again.
        drop(run_ip(&["netns", "del", &name]));
    }
    for name in listed(&["-o", "-br", "link", "show", "type", "bridge"]) {
        drop(run_ip(&["link", "del", &name]));
    }
}

fn run_ip(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command)
}

/// The name in a listing's line, if it is a lab's of a process that is gone.
fn orphan(line: &str) -> Option<String> {
    let name = line.split([' ', '@']).next()?;
    let rest = name.strip_prefix(PREFIX)?;
    let pid: u32 = rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()?;
    (!Path::new(&format!("/proc/{pid}")).exists()).then(|| name.to_owned())
}

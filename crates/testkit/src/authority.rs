//! Certificates as a test wants them: of any authority, name and age, put in place as those who renew them do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A year in which no test runs any more.
const LATER: i32 = 2090;
/// One in which none ran yet.
const BEFORE: i32 = 2020;

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Panics
    /// When the machine gives no random numbers; the same holds below, also for files that cannot be written.
    #[track_caller]
    pub fn new() -> Authority {
        let mut params = must(CertificateParams::new(Vec::new()));
        // By default all subjects are the same, which openssl takes for self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = must(KeyPair::generate());
        let pem = must(params.self_signed(&key)).pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// What a `[tls]` section says of the files below.
    pub const FILES: &str =
        "[tls]\ncertificate = \"tls/{node}.pem\"\nkey = \"tls/{node}.key\"\nauthority = \"tls/ca.pem\"\n";

    /// Writes `tls/ca.pem` under `dir`, and a good certificate for each of `nodes`.
    ///
    /// # Panics
    /// See [`Authority::new`].
    #[track_caller]
    pub fn equip<'n>(&self, dir: &Path, nodes: impl IntoIterator<Item = &'n str>) {
        put(dir, "ca.pem", &self.pem);
        for node in nodes {
            self.issue(dir, node, node);
        }
    }

    /// Gives `node` a certificate for `name`.
    ///
    /// # Panics
    /// See [`Authority::new`].
    #[track_caller]
    pub fn issue(&self, dir: &Path, node: &str, name: &str) {
        self.sign(dir, node, name, LATER);
    }

    /// The same with one that has expired.
    ///
    /// # Panics
    /// See [`Authority::new`].
    #[track_caller]
    pub fn issue_expired(&self, dir: &Path, node: &str, name: &str) {
        self.sign(dir, node, name, BEFORE);
    }

    #[track_caller]
    fn sign(&self, dir: &Path, node: &str, name: &str, year: i32) {
        let mut params = must(CertificateParams::new(vec![name.to_owned()]));
        params.distinguished_name.push(DnType::CommonName, node);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = must(KeyPair::generate());
        put(dir, &format!("{node}.pem"), &must(params.signed_by(&key, &self.issuer)).pem());
        put(dir, &format!("{node}.key"), &key.serialize_pem());
    }
}

/// Aside and renamed.
#[track_caller]
fn put(dir: &Path, name: &str, text: &str) {
    let place: PathBuf = dir.join("tls");
    must(fs::create_dir_all(&place));
    let aside = place.join("aside");
    must(fs::write(&aside, text));
    must(fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)));
    must(fs::rename(&aside, place.join(name)));
}

#[track_caller]
fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("make a certificate: {error}"),
    }
}

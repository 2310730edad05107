//! The certificate, key and authority of a node: what handshakes use now, and what replaces it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::{Tls, TlsMode};

use crate::material::{Files, Mark, Material};
use crate::tally::{Port, Side, Tally};

/// Why the files cannot be used. No message holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no PEM block that can be used; one of {wanted} is needed", .path.display())]
    Empty { path: PathBuf, wanted: &'static str },
    #[error("{} cannot be used: {what}", .path.display())]
    Unusable { path: PathBuf, what: String },
    #[error("{} is the key of another certificate than {}", .key.display(), .certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{path} is open to every user of this machine (mode {mode:04o}): chmod o= {path}", path = .path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("TLS: {0}")]
    Config(String),
}

impl TlsError {
    pub(crate) fn config(error: impl std::fmt::Display) -> TlsError {
        TlsError::Config(error.to_string())
    }
}

/// What is known of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// When the node's certificate, or one of those behind it, expires, in seconds since 1970; `None`: there is none.
    pub not_after: Option<u64>,
    /// Names of DNS that the certificate is for.
    pub names: Vec<String>,
    /// How often the files were taken anew, and how often they could not be.
    pub reloads: u64,
    pub failures: u64,
    /// Why the files that are there now are not in use; `None`: they are.
    pub last_error: Option<String>,
}

/// See the module. Cheap to ask: a handshake takes one lock for a moment.
#[derive(Debug)]
pub struct Keys {
    files: Files,
    current: Mutex<Arc<Material>>,
    seen: Mutex<Seen>,
    reloads: AtomicU64,
    failures: AtomicU64,
    last_error: Mutex<Option<String>>,
    pub(crate) tally: Tally,
}

type Marks = Vec<Option<Mark>>;

/// How the files looked.
#[derive(Debug)]
struct Seen {
    /// When they were last read.
    read: Marks,
    /// At the last look.
    last: Marks,
}

/// What a look at the files brought.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing has changed, or not long enough ago.
    Same,
    /// New files are in use.
    New,
    /// The files have changed, and cannot be used; the former ones are kept.
    Kept(TlsError),
}

impl Keys {
    /// Keys that serve a port, for a door or a caller. `serves`: whether they have what its mode takes; `needs`: what that is.
    ///
    /// # Errors
    /// When they have not, or there are none.
    pub(crate) fn for_port(
        keys: Option<&Arc<Keys>>,
        serves: impl Fn(&Keys) -> bool,
        (port, mode): (Port, TlsMode),
        needs: &str,
    ) -> Result<Arc<Keys>, TlsError> {
        let serving = keys.filter(|keys| serves(keys)).map(Arc::clone);
        serving.ok_or_else(|| TlsError::Config(format!("`{}` = \"{}\" needs {needs}", port.as_str(), mode.as_str())))
    }

    /// Reads the files of `node` as `tls` names them. What `tls` leaves out is not there, see [`config::Tls`].
    ///
    /// # Errors
    /// When one cannot be read or used; the message says which, and what would be right.
    pub fn open(tls: &Tls, node: &str) -> Result<Arc<Keys>, TlsError> {
        let own = tls.certificate.as_ref().zip(tls.key.as_ref());
        let own = own.map(|(certificate, key)| (certificate.of(node), key.of(node)));
        Keys::of(Files { own, authority: tls.authority.as_ref().map(|path| path.of(node)) })
    }

    /// Reads the authority only: enough to dial in the mode `on`.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn open_authority(tls: &Tls) -> Result<Arc<Keys>, TlsError> {
        Keys::of(Files { own: None, authority: tls.authority.as_ref().map(|path| path.of("")) })
    }

    fn of(files: Files) -> Result<Arc<Keys>, TlsError> {
        let marks = marks(&files);
        let current = Arc::new(Material::read(&files)?);
        Ok(Arc::new(Keys {
            files,
            current: Mutex::new(current),
            seen: Mutex::new(Seen { read: marks.clone(), last: marks }),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
            tally: Tally::default(),
        }))
    }

    /// What is known of the files now.
    pub fn state(&self) -> State {
        let current = self.current();
        State {
            not_after: current.not_after,
            names: current.names.clone(),
            reloads: self.reloads.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_error: locked(&self.last_error).clone(),
        }
    }

    /// Whether the node's certificate is for `name`.
    pub fn is_for(&self, name: &str) -> bool {
        self.current().names.iter().any(|each| each.eq_ignore_ascii_case(name))
    }

    /// How handshakes ended since the start: port, side, outcome (`done` or a fault's word), how often.
    pub fn handshakes(&self) -> Vec<(Port, Side, &'static str, u64)> {
        self.tally.read()
    }

    /// The certificate's file, for messages.
    pub(crate) fn certificate(&self) -> &Path {
        self.files.own.as_ref().map_or(Path::new(""), |(certificate, _)| certificate)
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        Arc::clone(&locked(&self.current))
    }

    /// Looks whether files have changed. They are read at the second look that finds them as the first: who writes a
    /// certificate and then its key is not met in the midst. Blocks on the disk for a moment.
    pub(crate) fn look(&self) -> Look {
        let now = marks(&self.files);
        let mut seen = locked(&self.seen);
        let settled = seen.last == now;
        seen.last.clone_from(&now);
        if !settled || seen.read == now {
            return Look::Same;
        }
        seen.read = now;
        drop(seen);
        match Material::read(&self.files) {
            Ok(material) => {
                *locked(&self.current) = Arc::new(material);
                *locked(&self.last_error) = None;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                Look::New
            }
            Err(error) => {
                *locked(&self.last_error) = Some(error.to_string());
                self.failures.fetch_add(1, Ordering::Relaxed);
                Look::Kept(error)
            }
        }
    }
}

fn marks(files: &Files) -> Marks {
    files.paths().map(Mark::of).collect()
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

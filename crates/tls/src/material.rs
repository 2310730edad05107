//! What the PEM files of a node hold, checked and ready for handshakes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::expiry;
use crate::keys::TlsError;

/// Which files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Certificate and key; not needed by who only checks others.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    pub(crate) authority: Option<PathBuf>,
}

impl Files {
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        own.chain(&self.authority).map(PathBuf::as_path)
    }
}

/// The content of all files at one time. `None`: that is not possible with what there is.
pub(crate) struct Material {
    /// Shows the certificate.
    pub(crate) server: Option<Arc<ServerConfig>>,
    /// Shows the certificate and wants one.
    pub(crate) server_mutual: Option<Arc<ServerConfig>>,
    /// Checks what it is shown.
    pub(crate) client: Option<Arc<ClientConfig>>,
    /// Checks what it is shown and shows the certificate.
    pub(crate) client_mutual: Option<Arc<ClientConfig>>,
    /// When the first certificate of the own file expires, in seconds since 1970.
    pub(crate) not_after: Option<u64>,
    /// The names that the certificate is for.
    pub(crate) names: Vec<String>,
}

/// Nothing of a key is shown, whatever the parts might show of themselves.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Material {
    /// Reads all files. Blocks on the disk.
    pub(crate) fn read(files: &Files) -> Result<Material, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let own = match &files.own {
            Some((certificate, key)) => Some(own(certificate, key, &provider)?),
            None => None,
        };
        let roots = files.authority.as_deref().map(roots).transpose()?.map(Arc::new);
        let certified = own.as_ref().map(|own| Arc::clone(&own.certified));
        let client = |shown| roots.as_ref().map(|roots| client(&provider, roots, shown)).transpose();
        Ok(Material {
            server: certified.clone().map(|shown| server(&provider, None, shown)).transpose()?,
            server_mutual: match (certified.clone(), &roots) {
                (Some(shown), Some(roots)) => Some(server(&provider, Some(roots), shown)?),
                (Some(_) | None, _) => None,
            },
            client: client(None)?,
            client_mutual: if certified.is_some() { client(certified)? } else { None },
            not_after: own.as_ref().and_then(|own| own.not_after),
            names: own.map(|own| own.names).unwrap_or_default(),
        })
    }
}

/// The certificate of this node.
struct Own {
    certified: Arc<CertifiedKey>,
    not_after: Option<u64>,
    names: Vec<String>,
}

fn own(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Own, TlsError> {
    let chain = certificates(certificate)?;
    let names = chain.first().map(names_of).unwrap_or_default();
    let ends: Option<Vec<u64>> = chain.iter().map(|each| expiry::not_after(each)).collect();
    let not_after = ends.and_then(|ends| ends.into_iter().min());
    let private = private_key(key)?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        } else {
            TlsError::Unusable { path: certificate.to_owned(), what: error.to_string() }
        }
    })?;
    Ok(Own { certified: Arc::new(certified), not_after, names })
}

/// The names of DNS that a certificate is for.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok();
    parsed.map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect()).unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| TlsError::Unusable { path: path.to_owned(), what: error.to_string() })?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), wanted: "CERTIFICATE" });
    }
    Ok(chain)
}

/// The errors of the parser are ours to word: nothing of the file's content may be in a message.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.mode();
    if mode & 0o007 != 0 {
        return Err(TlsError::Open { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::Empty { path: path.to_owned(), wanted: "PRIVATE KEY, without a passphrase" })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Unusable { path: path.to_owned(), what: error.to_string() })?;
    }
    Ok(roots)
}

fn server(
    provider: &Arc<CryptoProvider>,
    clients: Option<&Arc<RootCertStore>>,
    shown: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(Arc::clone(provider));
    let config = config.with_safe_default_protocol_versions().map_err(TlsError::config)?;
    let config = match clients {
        Some(roots) => {
            let checks = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
            config.with_client_cert_verifier(checks.build().map_err(TlsError::config)?)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
    // See the crate's head: no resumption.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    shown: Option<Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider));
    let config = config.with_safe_default_protocol_versions().map_err(TlsError::config)?;
    let config = config.with_root_certificates(Arc::clone(roots));
    let mut config = match shown {
        Some(shown) => config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown))),
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What shows that a file was written or replaced: also a link to another one, as Kubernetes does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Mark {
    /// `None`: it is not there.
    pub(crate) fn of(path: &Path) -> Option<Mark> {
        let seen = |data: &Metadata| Mark {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            // Of the inode: it moves with the content, the mode and a rename.
            changed: (data.ctime(), data.ctime_nsec()),
        };
        let found: io::Result<Metadata> = fs::metadata(path);
        found.ok().as_ref().map(seen)
    }
}

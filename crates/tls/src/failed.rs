//! From what rustls and the kernel say to a fault of the closed list.

use std::io;

use engine::recv::HandshakeFault;
use rustls::{CertificateError, Error, InvalidMessage};

/// Why a connection is not encrypted: the counted fault, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", .fault.explain(), in_brackets(.detail))]
pub struct Failed {
    pub fault: HandshakeFault,
    /// In the words of who found it; may be empty.
    pub detail: String,
}

fn in_brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

impl Failed {
    /// A fault that needs no more words.
    pub fn of(fault: HandshakeFault) -> Failed {
        Failed { fault, detail: String::new() }
    }

    /// What an error in the midst of a handshake means.
    #[allow(clippy::wildcard_enum_match_arm, reason = "`ErrorKind` is not ours and is non-exhaustive")]
    pub fn in_handshake(error: &io::Error) -> Failed {
        if let Some(failed) = Failed::of_tls(error) {
            return failed;
        }
        let fault = match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => HandshakeFault::Closed,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HandshakeFault::Timeout,
            _ => HandshakeFault::Io,
        };
        Failed { fault, detail: error.to_string() }
    }

    /// What a read or write of an encrypted stream means, if it is TLS that failed and not the socket. A peer that checks
    /// our certificate may say what it thinks of it only after the handshake has ended for us.
    pub fn of_tls(error: &io::Error) -> Option<Failed> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(Failed { fault: fault_of(error), detail: error.to_string() })
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "these enums are not ours and are non-exhaustive")]
fn fault_of(error: &Error) -> HandshakeFault {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            HandshakeFault::Plain
        }
        Error::NoCertificatesPresented => HandshakeFault::NoCertificate,
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => HandshakeFault::Untrusted,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => HandshakeFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => HandshakeFault::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                HandshakeFault::WrongName
            }
            _ => HandshakeFault::BadCertificate,
        },
        Error::AlertReceived(_) => HandshakeFault::Refused,
        Error::PeerIncompatible(_) => HandshakeFault::Incompatible,
        _ => HandshakeFault::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_fault_and_its_words() {
        let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        for (error, fault) in [
            (tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)), HandshakeFault::Plain),
            (tls(Error::NoCertificatesPresented), HandshakeFault::NoCertificate),
            (tls(Error::InvalidCertificate(CertificateError::UnknownIssuer)), HandshakeFault::Untrusted),
            (tls(Error::InvalidCertificate(CertificateError::Expired)), HandshakeFault::Expired),
            (tls(Error::InvalidCertificate(CertificateError::NotValidYet)), HandshakeFault::NotYetValid),
            (tls(Error::InvalidCertificate(CertificateError::NotValidForName)), HandshakeFault::WrongName),
            (tls(Error::InvalidCertificate(CertificateError::BadEncoding)), HandshakeFault::BadCertificate),
            (tls(Error::AlertReceived(rustls::AlertDescription::UnknownCA)), HandshakeFault::Refused),
            (tls(Error::DecryptError), HandshakeFault::Protocol),
            (io::ErrorKind::UnexpectedEof.into(), HandshakeFault::Closed),
            (io::Error::from_raw_os_error(104), HandshakeFault::Closed),
            (io::ErrorKind::PermissionDenied.into(), HandshakeFault::Io),
        ] {
            let failed = Failed::in_handshake(&error);
            assert_eq!(failed.fault, fault, "{error}");
            assert!(failed.to_string().ends_with(&format!("({error})")), "{failed}");
            assert_eq!(Failed::of_tls(&error).is_some(), error.kind() == io::ErrorKind::InvalidData, "{error}");
        }
    }
}

//! Why a TLS handshake came to nothing: every way, for every listener and every dialled connection.

/// See the module. The words of [`HandshakeFault::as_str`] begin with `tls_`, so that they stand beside other reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeFault {
    /// The peer speaks no TLS, and we do.
    Plain,
    /// The peer speaks TLS, and we do not.
    Unexpected,
    /// The peer closed or reset the connection in the midst.
    Closed,
    /// The handshake took longer than it may.
    Timeout,
    /// So many handshakes were in progress that this one did not get its turn.
    Busy,
    /// The peer shows no certificate where it must.
    NoCertificate,
    /// Nobody we trust vouches for the peer's certificate.
    Untrusted,
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is not valid yet.
    NotYetValid,
    /// The peer's certificate is another node's.
    WrongName,
    /// The peer's certificate is none that can be used.
    BadCertificate,
    /// The peer does not take our certificate, or what else we offer.
    Refused,
    /// No version or cipher that both sides have.
    Incompatible,
    /// Something that TLS does not say at this place.
    Protocol,
    /// The socket failed.
    Io,
}

impl HandshakeFault {
    /// Every fault, in the order of the enum.
    pub const ALL: [HandshakeFault; 15] = [
        HandshakeFault::Plain,
        HandshakeFault::Unexpected,
        HandshakeFault::Closed,
        HandshakeFault::Timeout,
        HandshakeFault::Busy,
        HandshakeFault::NoCertificate,
        HandshakeFault::Untrusted,
        HandshakeFault::Expired,
        HandshakeFault::NotYetValid,
        HandshakeFault::WrongName,
        HandshakeFault::BadCertificate,
        HandshakeFault::Refused,
        HandshakeFault::Incompatible,
        HandshakeFault::Protocol,
        HandshakeFault::Io,
    ];

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            HandshakeFault::Plain => "tls_plain",
            HandshakeFault::Unexpected => "tls_unexpected",
            HandshakeFault::Closed => "tls_closed",
            HandshakeFault::Timeout => "tls_timeout",
            HandshakeFault::Busy => "tls_busy",
            HandshakeFault::NoCertificate => "tls_no_certificate",
            HandshakeFault::Untrusted => "tls_untrusted",
            HandshakeFault::Expired => "tls_expired",
            HandshakeFault::NotYetValid => "tls_not_yet_valid",
            HandshakeFault::WrongName => "tls_wrong_name",
            HandshakeFault::BadCertificate => "tls_bad_certificate",
            HandshakeFault::Refused => "tls_refused",
            HandshakeFault::Incompatible => "tls_incompatible",
            HandshakeFault::Protocol => "tls_protocol",
            HandshakeFault::Io => "tls_io",
        }
    }

    /// What happened and what would be right.
    pub const fn explain(self) -> &'static str {
        match self {
            HandshakeFault::Plain => {
                "the peer speaks plain TCP where TLS is on: turn TLS on at the peer, or off in `[tls]` here"
            }
            HandshakeFault::Unexpected => {
                "the peer speaks TLS where it is off: turn it on in `[tls]` here, or off at the peer"
            }
            HandshakeFault::Closed => {
                "the peer closed in the TLS handshake: it may speak plain TCP (`[tls]` must be the same in all nodes), or \
                 its log says why"
            }
            HandshakeFault::Timeout => "the TLS handshake took too long",
            HandshakeFault::Busy => "too many TLS handshakes at once",
            HandshakeFault::NoCertificate => {
                "the peer shows no certificate where the mode is `mutual`: give it one in its `[tls]`"
            }
            HandshakeFault::Untrusted => {
                "the peer's certificate is not signed by `tls.authority`: sign it anew, or add its authority to that file"
            }
            HandshakeFault::Expired => "the peer's certificate has expired: renew it there; no restart is needed",
            HandshakeFault::NotYetValid => "the peer's certificate is not valid yet: check the clocks of both machines",
            HandshakeFault::WrongName => {
                "the peer's certificate is for another name: it must carry the node's name as a subject alternative name"
            }
            HandshakeFault::BadCertificate => "the peer's certificate cannot be used",
            HandshakeFault::Refused => "the peer refused the TLS handshake",
            HandshakeFault::Incompatible => "no TLS version or cipher in common: 1.2 and 1.3 are spoken here",
            HandshakeFault::Protocol => "the peer broke the rules of TLS",
            HandshakeFault::Io => "the socket failed in the TLS handshake",
        }
    }

    /// Whether somebody has to do something, rather than that a peer came or went at a bad moment.
    pub const fn wants_a_person(self) -> bool {
        match self {
            HandshakeFault::Closed | HandshakeFault::Timeout | HandshakeFault::Io => false,
            HandshakeFault::Plain
            | HandshakeFault::Unexpected
            | HandshakeFault::Busy
            | HandshakeFault::NoCertificate
            | HandshakeFault::Untrusted
            | HandshakeFault::Expired
            | HandshakeFault::NotYetValid
            | HandshakeFault::WrongName
            | HandshakeFault::BadCertificate
            | HandshakeFault::Refused
            | HandshakeFault::Incompatible
            | HandshakeFault::Protocol => true,
        }
    }
}

/// The first byte of a TLS connection (a handshake record), then the first of its version (RFC 8446, 5.1).
const RECORD: [u8; 2] = [0x16, 3];

/// Whether a connection that begins like this speaks TLS. Two bytes say it: no line begins with a control character, and
/// no first frame of a link is as long as these two would make it.
pub fn begins_tls(first: &[u8]) -> bool {
    first.starts_with(&RECORD)
}

/// Whether a connection whose first byte is this may speak TLS. A line never does; a frame whose length begins so is told
/// from it by its second byte.
pub fn may_begin_tls(first: u8) -> bool {
    first == RECORD[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_of_its_own_and_says_what_would_be_right() {
        let words: std::collections::BTreeSet<&str> = HandshakeFault::ALL.iter().map(|fault| fault.as_str()).collect();
        assert_eq!(words.len(), HandshakeFault::ALL.len());
        for fault in HandshakeFault::ALL {
            assert!(fault.as_str().starts_with("tls_") && fault.explain().len() > 20, "{fault:?}");
        }
    }

    #[test]
    fn a_client_hello_is_told_from_lines_and_frames() {
        assert!(begins_tls(&[0x16, 3, 1, 2, 0]) && begins_tls(&[0x16, 3]));
        for plain in [&b"a.b 1 2\n"[..], b"", &[0x16], &[0x16, 0, 0, 0, 1]] {
            assert!(!begins_tls(plain), "{plain:?}");
        }
    }
}

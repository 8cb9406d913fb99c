//! The causes of I/O errors of a dial: where the fault is, whether it lasts, and its message.

use std::error::Error as StdError;
use std::io;
use std::io::ErrorKind::{
    AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, InvalidData,
    InvalidInput, NetworkDown, NetworkUnreachable, NotFound, Other, PermissionDenied, TimedOut, UnexpectedEof,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoCause {
    OutOfFiles,
    PathTooLong,
    PermissionDenied,
    NoLocalAddress,
    NoSuchSocket,
    Refused,
    NoRoute,
    NetworkUnreachable,
    NetworkDown,
    NoAnswer,
    Broken,
    /// Any other error of the system, in the system's own words.
    Other,
}

impl IoCause {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_out_of_files(error) => Self::OutOfFiles,
            // tokio refuses the path before the system sees it.
            InvalidInput if error.raw_os_error().is_none() => Self::PathTooLong,
            PermissionDenied => Self::PermissionDenied,
            AddrNotAvailable => Self::NoLocalAddress,
            NotFound => Self::NoSuchSocket,
            ConnectionRefused => Self::Refused,
            HostUnreachable => Self::NoRoute,
            NetworkUnreachable => Self::NetworkUnreachable,
            NetworkDown => Self::NetworkDown,
            TimedOut => Self::NoAnswer,
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Broken,
            _ if error.raw_os_error().is_none() => Self::Broken,
            _ => Self::Other,
        }
    }

    /// The cause of an error after the connection was accepted. An answer that the driver cannot parse counts as a
    /// broken connection.
    pub(super) fn of_a_talk(error: &io::Error) -> Self {
        if is_of_the_network(error) { Self::of(error) } else { Self::Broken }
    }

    /// Returns whether another try can only help once the cause is removed.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self, Self::PathTooLong | Self::PermissionDenied)
    }

    pub(super) fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::OutOfFiles => "too many open files in this process",
            Self::PathTooLong => "the path of the socket is too long for this system",
            Self::PermissionDenied => "this process has no permission to connect",
            Self::NoLocalAddress => "this machine has no free port or no address to connect from",
            Self::NoSuchSocket => "no such socket",
            Self::Refused => "connection refused",
            Self::NoRoute => "no route to the host",
            Self::NetworkUnreachable => "the network is unreachable",
            Self::NetworkDown => "the network is down",
            Self::NoAnswer => "no answer from the network",
            Self::Broken => "the connection broke before it was ready",
            Self::Other => return None,
        })
    }
}

/// The server sent more than the protocol or the pool's limits allow, so the pool reads no more from it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProtocolViolation(pub(crate) String);

impl ProtocolViolation {
    pub(super) fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// EMFILE and ENFILE have no `io::ErrorKind` of their own. Their numbers are the same on every Unix that tokio
/// supports.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// The first I/O error among an error and its causes.
pub(super) fn io_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|error| error.downcast_ref())
}

/// Returns whether the stream below TLS failed, and not TLS itself.
pub(super) fn is_of_the_network(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
        || matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Returns whether a read or write through TLS failed because of TLS, such as an alert of the other side.
///
/// rustls reports these as `InvalidData`, native-tls as `Other`. The driver reports an answer that it cannot parse as
/// `InvalidInput`.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    !is_of_the_network(error) && matches!(error.kind(), InvalidData | Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ConnectErrorKind;

    #[test]
    fn causes_in_this_process_differ_from_the_servers() {
        for (kind, cause, is_local) in [
            (ConnectionRefused, IoCause::Refused, false),
            (HostUnreachable, IoCause::NoRoute, false),
            (NetworkUnreachable, IoCause::NetworkUnreachable, false),
            (NetworkDown, IoCause::NetworkDown, false),
            (TimedOut, IoCause::NoAnswer, false),
            (NotFound, IoCause::NoSuchSocket, false),
            (ConnectionReset, IoCause::Broken, false),
            (UnexpectedEof, IoCause::Broken, false),
            (InvalidInput, IoCause::PathTooLong, true),
            (PermissionDenied, IoCause::PermissionDenied, true),
            (AddrNotAvailable, IoCause::NoLocalAddress, true),
        ] {
            let found = IoCause::of(&kind.into());
            assert_eq!((found, ConnectErrorKind::of(found) == ConnectErrorKind::Local), (cause, is_local), "{kind:?}");
        }
        assert_eq!(
            ConnectErrorKind::of(IoCause::of(&io::Error::from_raw_os_error(24))),
            ConnectErrorKind::TooManyOpenFiles
        );
    }

    #[test]
    fn an_alert_comes_from_tls_and_a_reset_does_not() {
        assert!(is_of_tls(&io::Error::new(InvalidData, "received fatal alert: CertificateRequired")));
        assert!(is_of_tls(&io::Error::other("sslv13 alert certificate required")));
        assert!(!is_of_tls(&io::Error::from_raw_os_error(104)));
        assert!(!is_of_tls(&UnexpectedEof.into()));
        assert!(!is_of_tls(&io::Error::new(InvalidInput, "invalid message length")));
    }
}

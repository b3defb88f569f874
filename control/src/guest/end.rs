//! How a session ends.

use vhost::socket::SocketError;

use super::HELD;

/// Why a session ended.
pub(super) enum End {
    /// The guest's process closed the connection.
    Gone,
    /// Nobody is to be connected for now.
    Held,
    /// Somebody broke a rule.
    Broken(String),
}

impl End {
    pub(super) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }

    pub(super) fn socket(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::Gone,
            other => Self::broken(other),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("the guest's process closed the connection"),
            Self::Held => f.write_str(HELD),
            Self::Broken(reason) => write!(f, "the session was ended: {reason}"),
        }
    }
}

//! Why something of DPDK failed, in words for the operator.
//!
//! DPDK returns an error number and logs the rest. These types carry both: `said` is what it logged
//! as errors during the call, which is usually the better half.

use thiserror::Error;

/// Why EAL did not start, or a thread could not be registered with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EalError {
    /// EAL can be started once in the life of a process, and a failed start cannot be repeated.
    #[error("DPDK can be started once in a process, and this process has tried before")]
    AlreadyStarted,
    /// An option was refused before DPDK saw it.
    #[error("dpdk.{field}: {reason}")]
    Option {
        /// The field of [`EalOptions`](super::EalOptions).
        field: &'static str,
        /// What is wrong with its value and what would be right.
        reason: String,
    },
    /// EAL refused to start.
    #[error("DPDK did not start ({reason}{}); {remedy}", tail(said))]
    Start {
        /// The error number's text.
        reason: String,
        /// What EAL logged as errors.
        said: String,
        /// What the operator can do.
        remedy: String,
    },
    /// No more threads fit, or the thread is registered already.
    #[error("the thread could not be registered with DPDK: {0}")]
    Thread(String),
}

/// Why a memory pool was not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// An argument was refused before DPDK saw it.
    #[error("memory pool `{name}`: {reason}")]
    Argument {
        /// Name of the pool.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// DPDK refused.
    #[error(
        "memory pool `{name}` of {frames} frames was not made ({reason}{}); {remedy}",
        tail(said)
    )]
    Create {
        /// Name of the pool.
        name: String,
        /// Frames that were asked for.
        frames: u32,
        /// The error number's text.
        reason: String,
        /// What DPDK logged as errors.
        said: String,
        /// What the operator can do.
        remedy: String,
    },
}

/// Why a device could not be probed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The text is not of a device's form.
    #[error("device `{devargs}`: {reason}")]
    Devargs {
        /// The text as it was given.
        devargs: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// No driver of that name is loaded.
    #[error(
        "device `{device}`: no driver `{driver}` is loaded; if the name is right, install Debian's \
         package {package} (drivers are read from {directory} when Viaduct starts)"
    )]
    NoDriver {
        /// The device's name.
        device: String,
        /// The driver that the name asks for.
        driver: String,
        /// The package that would hold it by Debian's naming.
        package: String,
        /// Where DPDK looks for drivers.
        directory: &'static str,
    },
    /// DPDK is built for a fixed number of devices, and all are taken.
    #[error(
        "device `{device}`: this DPDK is built for {limit} Ethernet devices in a process \
         (RTE_MAX_ETHPORTS), and all are in use; remove one first"
    )]
    TooMany {
        /// The device's name.
        device: String,
        /// How many DPDK can hold.
        limit: u16,
    },
    /// The device is in use.
    #[error("device `{device}` is in use already; every device can be probed once")]
    InUse {
        /// The device's name.
        device: String,
    },
    /// The driver or the bus refused.
    #[error("device `{device}` was not probed ({reason}{}); {remedy}", tail(said))]
    Refused {
        /// The device's name.
        device: String,
        /// The error number's text.
        reason: String,
        /// What DPDK logged as errors.
        said: String,
        /// What the operator can do.
        remedy: String,
    },
}

/// Why a probed device did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EthError {
    /// Configuring and stopping need all queues back.
    #[error(
        "device `{device}` cannot be reconfigured or stopped while {queues} of its queues are held"
    )]
    QueuesHeld {
        /// The device's name.
        device: String,
        /// Queue handles that are alive.
        queues: usize,
    },
    /// A wish that the device cannot meet at all.
    #[error("device `{device}`: {field}: {reason}")]
    Config {
        /// The device's name.
        device: String,
        /// The field of [`EthConfig`](super::EthConfig).
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A call was refused.
    #[error("device `{device}`: {action} failed ({reason}{})", tail(said))]
    Refused {
        /// The device's name.
        device: String,
        /// What was tried.
        action: &'static str,
        /// The error number's text.
        reason: String,
        /// What DPDK logged as errors.
        said: String,
    },
}

/// What DPDK said, to follow a reason.
fn tail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

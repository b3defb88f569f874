//! The control side: what Viaduct should be, and what it reports that it is.
//!
//! ```text
//! daemon  the control thread's loop: watch, apply, report, answer
//! switch  what is attached, and how desired state changes that: `Switch::apply`
//! compile desired state, made into the tables of the workers: pure
//! crew    the workers' threads                          guest   a guest's vhost-user socket
//! learned addresses that are kept over a restart     handover how guests go to the next process
//! balance which worker should poll which queue: pure    cores   lists of CPUs
//! budget  how many buffers each device may hold         nic     PFs and VFs by the kernel
//! config  what the machine is: one TOML file            key     where each object stands
//! store   where desired state is read and actual        model   the objects, their grammar, and who
//!         state is written: a directory of files                may be in force: `Desired`
//! metrics figures over HTTP                            notify  what systemd is told
//! reports actual state on its way to the store
//! edit    what the commands do to a store               check   the same judgement without a daemon
//! engine  DPDK, which starts beside everything else     beat    timers that go off together
//! setup   what a host lacks before a switch can run there
//! frame   a frame as one line, for who asks what would become of it; a filter as one line
//! show    what can be shown of a running daemon, and the socket that it is asked by
//! ```
//!
//! A change goes `store` → `model::Desired` → `switch`. What is absent: no frame is seen here,
//! nothing here runs on a worker's core, and there is no unsafe code.
#![forbid(unsafe_code)]

mod balance;
mod beat;
mod bond;
pub mod budget;
pub mod check;
mod compile;
pub mod config;
mod cores;
mod crew;
pub mod daemon;
#[cfg(test)]
mod documented;
mod early;
pub mod edit;
mod engine;
mod fields;
mod filters;
pub mod frame;
mod guest;
pub mod handover;
pub mod key;
mod learned;
mod metrics;
pub mod model;
mod netlink;
mod nic;
pub mod nics;
mod notify;
mod numbers;
mod pci;
pub mod problem;
mod reports;
pub mod schema;
pub mod setup;
pub mod show;
pub mod store;
mod switch;
mod tap;
mod text;
mod wire;

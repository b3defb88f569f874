//! The control side: what Viaduct should be, and what it reports that it is.
//!
//! ```text
//! config  what the machine is: one TOML file            key     where each object stands
//! store   where desired state is read and actual        model   the objects, their grammar, and who
//!         state is written: a directory of files                may be in force: `Desired`
//! edit    what the commands do to a store               check   the same judgement without a daemon
//! ```
//!
//! A change goes `store` → `model::Desired` → (what is attached and published). Everything up to there
//! is pure but for the store. What is absent: no frame is seen here, nothing here runs on a worker's
//! core, and there is no unsafe code.
#![forbid(unsafe_code)]

pub mod check;
mod compile;
pub mod config;
mod crew;
pub mod daemon;
#[cfg(test)]
mod documented;
pub mod edit;
mod fields;
mod guest;
pub mod key;
pub mod model;
mod numbers;
pub mod problem;
pub mod schema;
pub mod show;
pub mod store;
mod switch;
mod text;
mod wire;

//! Bindings to the part of DPDK that Viaduct calls, generated when built.
//!
//! The allow-list is in `build.rs` at the root of the workspace; `wrapper.h` names the headers and
//! constants, `shim.c` holds what cannot be bound. Nothing here is safe or documented: the safe
//! layer over it is `dataplane::dpdk`, which alone uses this crate.

// Generated code follows C's names, not ours.
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

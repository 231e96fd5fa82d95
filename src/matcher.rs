//! How the kernel tells packets of a blocked account from others.

pub mod bpf;
pub mod strings;

//! `ringfence test`.

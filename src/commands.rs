//! What each tool does: its command line and its `run`.

pub mod ignore;

//! What listens: a process of its own without any privilege, which gets finished pages from the one that watches.
//!
//! That one opens the sockets, starts this executable anew under another name and hands them over; nothing of
//! its memory, its files or its rights is in the new process. Whatever a client does there, the watching process
//! answers one byte with a page that it makes once a tick at most.

pub mod child;
#[cfg(feature = "tls")]
pub mod config;
mod connections;
#[cfg(feature = "tls")]
mod guard;
mod http;
pub mod listen;
mod pace;
pub mod parent;
pub mod wire;

//! The entry points. The kernel cuts names off after 15 characters.

mod census;
mod fexit;
mod kprobe;
mod tracepoint;

//! The programs in the kernel, seen from outside: plan (pure) -> load -> read. The only room that
//! names aya.

pub mod layout;
pub mod load;
mod misses;
pub mod plan;
pub mod read;
mod talk;

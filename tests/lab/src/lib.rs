//! A client, a router and a server in network namespaces; traffic that knows what it sent; a judge
//! that asks the kernel, and a reader of what monitoring plugins print. For the tests, the
//! benchmark, and a newcomer's first look.
//!
//! Everything a lab makes or changes is undone by [`guard::Guard`], whatever ends the process.

pub mod crowd;
pub mod guard;
pub mod judge;
pub mod kept;
mod links;
mod netfilter;
mod netlink;
pub mod netns;
pub mod plugin;
mod rooms;
pub mod strangers;
pub mod topology;
pub mod traffic;

pub use topology::{Lab, Plan, STAYS_FULL};

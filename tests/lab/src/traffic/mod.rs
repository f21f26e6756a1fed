//! Traffic that knows what it sent.

mod flows;
mod frame;
mod local;
mod send;

pub use flows::{Family, Flow, Flows, Protocol};
pub use local::{LocalOutcome, connect_locally};
pub use send::{Flood, Sent};

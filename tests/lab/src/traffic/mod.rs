//! Traffic that knows what it sent.

mod flows;
mod frame;
mod local;
mod send;

pub use flows::{Family, Flow, Flows, Protocol, Towards};
pub use local::{LocalOutcome, connect_locally, send_segmented};
pub use send::{BATCH, Flood, Sent};

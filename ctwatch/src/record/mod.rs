//! What was read, as plain values: uninterpreted, `None` or a reason where it could not be had. Knows
//! nothing else.

pub mod facts;
pub mod measurement;
pub mod rules;
pub mod sample;

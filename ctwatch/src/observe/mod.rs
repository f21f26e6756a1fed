//! Seeing: what reads the machine, again and again or once. Each runs on a thread of its own, because
//! entering a namespace changes the thread.

mod asking;
pub mod census;
pub mod event;
mod in_time;
pub mod loading;
pub mod sampler;
pub mod schedule;
pub mod session;
pub mod survey;
pub mod surveyor;
mod turns;
pub mod wanted;

//! Files and programs of this machine.

pub mod evidence;
pub mod files;
pub mod journal;
pub mod notify;
pub mod statefile;
pub mod tools;
pub mod usage;
pub mod zone;

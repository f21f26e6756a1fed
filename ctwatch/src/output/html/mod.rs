//! A page that tells what happened to the tables, for a reader who was not there: one file, which needs no
//! network, and no script to be read.

mod bars;
mod census;
mod chart;
mod csp;
mod events;
mod exact;
mod findings;
mod flags;
mod headline;
mod holding;
mod input;
mod key_figures;
mod landing;
#[cfg(test)]
mod morning;
mod notable;
mod page;
mod plane;
mod reckoning;
mod scale;
#[cfg(test)]
mod tests;
mod timeline;
mod what_if;
mod who;
mod words;

pub use input::Input;
pub use landing::{Landing, landing};
pub use page::page;

//! The screen of `ctwatch top`: what is looked at, and how it is drawn. It renders snapshots and computes nothing
//! of them; it knows no clock, no file and no terminal, so that each screen is tested from values.

pub mod acts;
pub mod advice;
pub mod canvas;
pub mod columns;
pub mod decode;
pub mod grid;
pub mod history;
pub mod keys;
pub mod look;
pub mod pointing;
pub mod rows;
pub mod scene;
pub mod state;
pub mod states;
pub mod view;
pub mod wire;

#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod screens;

//! What is looked at for an archive.

use std::time::Instant;

use crate::{
    host::netns::visit::Source,
    observe::{sampler::Scope, wanted::Whose},
};

/// What is looked at, and by what means.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) scope: Scope,
    pub(super) whose: Whose,
    pub(super) source: Source,
    pub(super) cookies: bool,
    /// Somebody wanted this scope and no more.
    pub(super) asked: bool,
    /// When all has to be read.
    pub(super) until: Instant,
}

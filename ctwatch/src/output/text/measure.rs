//! What is shown of something that goes on.

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Measure {
    /// Its rate, where there is any.
    Now,
    /// All that it came to.
    InAll,
}

//! Values that both halves agree on, as aya takes them.

use ctwatch_abi::Plain;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Value<T>(pub(super) T);

// SAFETY: of the same layout as `T`, which is integers and bytes without padding.
unsafe impl<T: Plain> aya::Pod for Value<T> {}

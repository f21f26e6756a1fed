//! Attached nowhere: run when it is asked for.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::hooks::census;

#[raw_tracepoint]
pub(crate) fn walk(_ctx: RawTracePointContext) -> i32 {
    census::walk();
    0
}

#[raw_tracepoint]
pub(crate) fn peek(_ctx: RawTracePointContext) -> i32 {
    census::peek();
    0
}

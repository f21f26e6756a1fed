//! One thin adapter per attach point: find the arguments, decide what it was, call the tally.

pub(crate) mod kfree_skb;
pub(crate) mod kmem;

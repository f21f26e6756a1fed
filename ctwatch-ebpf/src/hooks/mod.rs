//! What an event was: from its arguments, however they were come by, to a count in the tally.

pub(crate) mod census;
pub(crate) mod entry;
pub(crate) mod kfree_skb;
pub(crate) mod kmem;
pub(crate) mod loading;
pub(crate) mod refusal;
pub(crate) mod tell;
pub(crate) mod who;

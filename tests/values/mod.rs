//! Recordings made from values: a machine whose generator knows what happened, written down by ctwatch's
//! own code, the same in each run.

pub(crate) mod machine;
pub(crate) mod tape;

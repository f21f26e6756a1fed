//! What a fix would change in the tables, as far as that can be reckoned.

use ctwatch_abi::NetnsId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// All tables may hold so many entries.
    Limit { to: u64 },
    /// One table would have held fewer entries, when a census found so many in it.
    Fewer { netns: NetnsId, of: u64, at_least: u64, at_most: u64 },
}

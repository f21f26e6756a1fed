//! What netfilter says of itself in the calling thread's namespace: entries, counters, rules.

mod attributes;
pub mod ctnetlink;
pub mod dump;
mod expressions;
pub mod flow_line;
pub mod hooks;
pub mod legacy;
pub mod listing;
pub mod nft;
pub mod procstat;
pub mod rule_news;
pub mod tuple;
pub mod xtables;

//! How much of a table each kind of entry holds.

use super::words::percent;
use crate::model::census::Holds;

/// `120 pinned (60.0%), 10 closing (5.0%), 70 reclaimable (35.0%)`
pub(crate) fn shares(holds: &Holds) -> String {
    let share = |count: u64| match holds.all() {
        0 => String::new(),
        all => format!(" ({})", percent(Some(count as f64 / all as f64))),
    };
    let Holds { reclaimable, closing, pinned, expired, offloaded } = *holds;
    let mut parts = vec![(pinned, "pinned"), (closing, "closing"), (reclaimable, "reclaimable")];
    if expired > 0 {
        parts.push((expired, "expired"));
    }
    let parts = parts.iter().map(|(count, name)| format!("{count} {name}{}", share(*count)));
    let mut line = parts.collect::<Vec<_>>().join(", ");
    if offloaded > 0 {
        line += &format!("; of them {offloaded} offloaded{}", share(offloaded));
    }
    line
}

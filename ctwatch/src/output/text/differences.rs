//! What differs between two machines, side by side.

use std::io::{self, Write};

use super::{offline, wrap::wrapped};
use crate::{
    diagnosis::{differences::Difference, report::Report},
    output::escape::escaped,
};

pub fn write(
    out: &mut impl Write,
    of: [&Report; 2],
    all: &[Difference],
    columns: usize,
) -> io::Result<()> {
    let mut lines = Vec::new();
    for (mark, report) in ["first", "second"].into_iter().zip(of) {
        let head = report.offline.as_ref().map(|one| offline::head(one, &report.kernel));
        lines.push(format!("{mark}: {}", head.unwrap_or_default()));
    }
    let word = |of: &Option<String>| of.clone().unwrap_or_else(|| "-".to_owned());
    for Difference { what, first, second } in all {
        lines.push(format!("  {what}: {} | {}", word(first), word(second)));
    }
    if all.is_empty() {
        lines.push("  nothing differs in what was read".to_owned());
    }
    for (mark, report) in ["first", "second"].into_iter().zip(of) {
        for one in report.offline.iter().flat_map(|offline| &offline.undecided) {
            lines.push(format!("not read of the {mark}: {} ({})", one.unknown, one.command));
        }
    }
    lines.iter().try_for_each(|line| wrapped(out, &escaped(line), columns))
}

//! What differs between two machines.

use std::io::{self, Write};

use serde::Serialize;

use super::line::{Begin, write_line};
use crate::diagnosis::{differences::Difference, report::Offline};

#[derive(Serialize)]
struct DifferencesObject<'a> {
    #[serde(flatten)]
    begin: Begin,
    first: Option<&'a Offline>,
    second: Option<&'a Offline>,
    differences: &'a [Difference],
}

/// One object, one line.
pub fn write(
    out: &mut impl Write,
    [first, second]: [Option<&Offline>; 2],
    differences: &[Difference],
) -> io::Result<()> {
    write_line(
        out,
        &DifferencesObject { begin: Begin::of("differences"), first, second, differences },
    )
}

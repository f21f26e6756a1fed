//! The doctor's report.

use std::io::{self, Write};

use serde::Serialize;

use super::line::{Begin, write_line};
use crate::diagnosis::report::Report;

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    begin: Begin,
    #[serde(flatten)]
    report: &'a Report,
}

/// One object, one line.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    write_line(out, &Object { begin: Begin::of("doctor"), report })
}

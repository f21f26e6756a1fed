//! `ctwatch doctor --diff A B`: what differs between what was printed of two machines, or at two moments.

use std::{io::Write, path::Path};

use anyhow::Result;

use super::offline::{self, Examined};
use crate::{
    cli::Output,
    diagnosis::differences::{Side, differences},
    output::{json, text},
};

pub(super) fn run(first: &Path, second: &Path, output: Output) -> Result<()> {
    let [one, other] = [first, second].map(offline::look);
    let (one, other) = (one?, other?);
    fn side(of: &Examined) -> Side<'_> {
        Side { facts: &of.facts, findings: &of.report.findings }
    }
    let all = differences(side(&one), side(&other));
    let mut bytes = Vec::new();
    match output {
        Output::Text => {
            let of = [&one, &other].map(|of| &of.report);
            text::differences::write(&mut bytes, of, &all, super::columns())?;
        }
        Output::Json => {
            let of = [&one, &other].map(|of| of.report.offline.as_ref());
            json::differences::write(&mut bytes, of, &all)?;
        }
    }
    bytes.flush()?;
    super::print(&bytes)
}

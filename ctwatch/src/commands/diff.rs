//! `ctwatch doctor --diff A B`: what differs between what was printed of two machines, or at two moments.

use std::{io::Write, path::Path};

use anyhow::Result;

use super::offline::{self, Examined};
use crate::{
    cli::Output,
    diagnosis::differences::{Side, differences},
    output::{json, text},
    recording::mask::Mask,
};

pub(super) fn run(paths: [&Path; 2], output: Output, mask: Option<Mask>) -> Result<()> {
    let [one, other] = paths.map(|path| offline::look(path, mask.clone()));
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

//! README shows what ctwatch prints: the same situation in the lab has the same lines, but for numbers,
//! times and addresses. Where a column or a word changes, README's block is all there is to edit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flows, Protocol},
};

use crate::{
    On, Test, test,
    watch::{Background, ctwatch, while_more_come},
};

pub(crate) const TESTS: &[Test] =
    &[test(On::Once, "readme_shows_what_ctwatch_prints", shows).anywhere()];

const README: &str = include_str!("../../README.md");
/// What the router is called in README.
const ROUTER: &str = "rt";

/// What a line is apart from what differs from one run to the next.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for word in line.split_whitespace() {
        // The release of the kernel.
        let word = if shape.ends_with("Linux") { "1," } else { word };
        // A bound, a sign: which of them it is, the numbers decide.
        let word = word.trim_start_matches(['<', '>', '=', '~', '+', '-']);
        if !shape.is_empty() {
            shape.push(' ');
        }
        let mut rest = word.chars().peekable();
        while let Some(c) = rest.next() {
            if !c.is_ascii_digit() {
                shape.push(c);
                continue;
            }
            // A number, a time or an address; not the mark that ends a part of a sentence.
            shape.push('#');
            while let Some(mark) = rest.next_if(|c| c.is_ascii_digit() || ",.:".contains(*c)) {
                let ends =
                    !mark.is_ascii_digit() && rest.peek().is_none_or(|c| !c.is_ascii_digit());
                if ends {
                    shape.push(mark);
                    break;
                }
            }
        }
    }
    shape
}

/// The first block of README: what ctwatch prints.
fn block() -> Result<Vec<&'static str>> {
    let block = README.split("```\n").nth(1).context("README has no block")?;
    let lines: Vec<_> = block.lines().collect();
    ensure!(lines.len() > 5 && lines[0].starts_with("ctwatch "), "{lines:?}");
    Ok(lines)
}

/// The first line of README that is not among these, in README's order.
fn missing<'a>(wanted: &[&'a str], printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines().map(shape);
    let mut is_printed = |line: &&&str| {
        let wanted = shape(line);
        printed.any(|line| line == wanted)
    };
    wanted.iter().find(|line| !is_printed(line)).copied()
}

fn shows() -> Result<()> {
    let wanted = block()?;
    // A line that is not there is missed.
    let (all, most) = (wanted.join("\n"), wanted[1..].join("\n"));
    ensure!(missing(&wanted, &all).is_none() && missing(&wanted, &most).is_some(), "{all}");
    let mut lab = Lab::new(Plan::default())?;
    lab.set_limit(1000)?;
    let router = lab.router().name().to_owned();
    let mut command = ctwatch()?;
    // As README's, whatever this kernel would choose.
    command.args(["--netns", &router, "--mechanism", "tracepoint"]);
    let mut watching = Background::start(&mut command)?;
    let flows = Flows { sources: 50, services: 3, ..Flows::of(Family::V4, Protocol::Udp) };
    // Two lines without traffic first: a trend needs them.
    std::thread::sleep(Duration::from_millis(2100));
    let as_in_readme = |text: &str| text.replace(&router, ROUTER);
    let outcome = while_more_come(&lab, flows, 0, 500, || {
        watching.until(|text| missing(&wanted, &as_in_readme(text)).is_none())
    });
    outcome.with_context(|| {
        let text = as_in_readme(watching.text());
        let line = missing(&wanted, &text).unwrap_or_default();
        format!(
            "ctwatch printed no line as this one of README's first block; put there what it prints:\n\
             {line}\n"
        )
    })
}

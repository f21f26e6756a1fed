//! What the doctor found, and what to type.

use maud::{Markup, html};

use super::{reckoning::Reckoning, what_if, words::strange};
use crate::{
    diagnosis::report::{Finding, Fix, Severity},
    output::escape::verbatim,
};

pub(super) fn section(reckoning: Option<Reckoning<'_>>) -> Markup {
    let Some(reckoning) = reckoning else { return html! {} };
    let report = reckoning.report;
    html! {
        section #findings {
            h2 { "Findings and fixes" }
            @if report.findings.is_empty() {
                p {
                    "Nothing was found"
                    @if !report.tracking.unknown.is_empty() { " in what could be seen; not all could" }
                    "."
                }
            }
            @for (finding, number) in report.findings.iter().zip(1..) { (found(&reckoning, finding, number)) }
        }
    }
}

fn found(reckoning: &Reckoning<'_>, finding: &Finding, number: usize) -> Markup {
    let (class, word) = match finding.severity {
        Severity::Critical => ("critical", "CRITICAL"),
        Severity::Warning => ("warning", "WARNING"),
        Severity::Info => ("info", "INFO"),
    };
    html! {
        article.finding.(class) {
            h3 { (number) ". " span.severity { (word) } " " (strange(&finding.title)) }
            ul { @for line in &finding.evidence { li { (strange(line)) } } }
            // What helps most is open.
            @for (at, fix) in finding.fixes.iter().enumerate() {
                (cure(reckoning, fix, number == 1 && at == 0))
            }
        }
    }
}

fn cure(reckoning: &Reckoning<'_>, fix: &Fix, is_open: bool) -> Markup {
    html! {
        details.fix open[is_open] {
            summary { (strange(&fix.title)) }
            (commands("Save the rules first", &fix.save))
            (commands("Arm the undo: it runs by itself after two minutes", &fix.arm))
            (commands("Now", &fix.now))
            @if let Some(elsewhere) = &fix.elsewhere {
                h5 { "Not here: " (strange(&elsewhere.place)) }
                (typed(&elsewhere.commands))
            }
            @if let Some(check) = &fix.check {
                (commands("See that it worked", std::slice::from_ref(&check.command)))
                p { "It prints: " (strange(&check.prints)) }
            }
            (commands("Disarm the undo, if all still works", &fix.disarm))
            @for file in &fix.files {
                h5 { "Persist in " code { (strange(&file.path)) } }
                (typed(std::slice::from_ref(&file.content)))
            }
            @for line in &fix.lasts { p { "Lasts: " (strange(line)) } }
            @if !fix.expect.is_empty() { p { strong { "Expect: " } (strange(&fix.expect)) } }
            (what_if::with(reckoning, fix))
            @if !fix.breaks.is_empty() { p { strong { "Breaks: " } (strange(&fix.breaks)) } }
            (commands("Undo", &fix.undo))
        }
    }
}

fn commands(title: &str, commands: &[String]) -> Markup {
    html! { @if !commands.is_empty() { h5 { (title) } (typed(commands)) } }
}

/// To be copied: nothing is added, and nothing is shown that does not print.
fn typed(commands: &[String]) -> Markup {
    let lines = commands.iter().flat_map(|command| command.lines()).map(verbatim);
    let lines: Vec<String> = lines.collect();
    html! { pre { code { (lines.join("\n")) } } }
}

//! The doctor's report as text.

use std::io::{self, Write};

use super::{escape::escaped, text::wrapped};
use crate::report::{Conntrack, Finding, Fix, Report, Severity, Tracking};

/// The verdict first, then its grounds.
pub fn write(out: &mut impl Write, report: &Report, columns: usize) -> io::Result<()> {
    let Report { version, kernel, architecture, .. } = report;
    let head = format!("ctwatch {version} on Linux {kernel} ({architecture})");
    let mut lines = vec![Line::text(head), Line::text("what is wrong")];
    if report.findings.is_empty() {
        let all = report.tracking.unknown.is_empty();
        let seen = if all { "" } else { " in what could be seen; not all could, see below" };
        lines.push(Line::text(format!("  nothing was found{seen}")));
    }
    lines.extend(
        report.findings.iter().zip(1..).flat_map(|(finding, number)| said(finding, number)),
    );
    lines.extend(tracked(report).into_iter().map(Line::text));
    lines.extend(measured(report).into_iter().map(Line::text));
    for line in lines {
        match line {
            Line::Text(text) => wrapped(out, &escaped(&text), columns)?,
            // To be copied: a line that is cut in two is another command.
            Line::Verbatim(text) => writeln!(out, "{}", verbatim(&text))?,
        }
    }
    Ok(())
}

/// What goes with the files of fixes.
pub fn readme(findings: &[Finding]) -> String {
    let mut text = String::from(
        "Written by ctwatch doctor. Nothing here is in force: take what you decide for.\n\
         A file below this folder belongs at the same place below /.\n\n",
    );
    for line in findings.iter().zip(1..).flat_map(|(finding, number)| said(finding, number)) {
        let line = match line {
            Line::Text(line) => escaped(&line),
            Line::Verbatim(line) => verbatim(&line),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// As it is: an escape more, and a quoted word is another one, or none. Names in it are quoted so that
/// nothing in them fails to print; what does so all the same is no command.
fn verbatim(line: &str) -> String {
    let prints = |c: char| c.is_ascii_graphic() || matches!(c, ' ' | '\t');
    match line.chars().all(prints) {
        true => line.to_owned(),
        false => format!("# not shown, because not all of it prints: {}", escaped(line)),
    }
}

enum Line {
    Text(String),
    Verbatim(String),
}

impl Line {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

fn said(finding: &Finding, number: usize) -> Vec<Line> {
    let severity = match finding.severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "to know",
    };
    let mut lines = vec![Line::text(format!("{number}. {severity}: {}", finding.title))];
    lines.extend(finding.evidence.iter().map(|line| Line::text(format!("   {line}"))));
    lines.extend(finding.fixes.iter().flat_map(cure));
    lines
}

fn cure(fix: &Fix) -> Vec<Line> {
    let mut lines = vec![Line::text(format!("   -> {}", fix.title))];
    let indented = |text: &str| {
        // A script that reads to a word of its own is not moved: the word must begin its line.
        let moved = |line: &str| match text.contains('\n') {
            true => line.to_owned(),
            false => format!("        {line}"),
        };
        text.lines().map(moved).map(Line::Verbatim).collect::<Vec<_>>()
    };
    let mut part = |name: &str, commands: &[String]| {
        if !commands.is_empty() {
            lines.push(Line::text(format!("      {name}:")));
            lines.extend(commands.iter().flat_map(|command| indented(command)));
        }
    };
    part("now", &fix.now);
    for file in &fix.files {
        lines.push(Line::text(format!("      to last, in {}:", file.path)));
        lines.extend(file.content.lines().map(|line| Line::Verbatim(format!("        {line}"))));
    }
    for (name, text) in [("expect", &fix.expect), ("breaks", &fix.breaks)] {
        if !text.is_empty() {
            lines.push(Line::text(format!("      {name}: {text}")));
        }
    }
    if !fix.undo.is_empty() {
        lines.push(Line::text("      undo:"));
        lines.extend(fix.undo.iter().flat_map(|command| indented(command)));
    }
    lines
}

/// Whether, where and what for connections are tracked.
fn tracked(report: &Report) -> Vec<String> {
    let Tracking { needed_by, unknown, modules, barred_by, namespaces } = &report.tracking;
    let mut lines = vec!["is it tracking, and why".to_owned()];
    lines.push(match report.conntrack {
        Conntrack::Absent => "  nf_conntrack is not loaded: nothing is tracked".to_owned(),
        Conntrack::BuiltIn => "  nf_conntrack is built into the kernel".to_owned(),
        Conntrack::Module => "  nf_conntrack is loaded as a module".to_owned(),
    });
    for namespace in namespaces {
        let name = namespace.name.clone().unwrap_or_else(|| format!("netns {}", namespace.inode));
        let hooked = match namespace.hooked {
            Some(true) => "tracks",
            Some(false) => "does not track",
            None => "tracks perhaps",
        };
        let count =
            |count: Option<u32>| count.map_or("unknown".to_owned(), |count| count.to_string());
        let entries = count(namespace.entries);
        let of = match namespace.limit {
            Some(0) => "entries, and no limit".to_owned(),
            limit => format!("of {} entries", count(limit)),
        };
        // Of those that track nothing and hold nothing there may be hundreds.
        if namespace.hooked != Some(false) || namespace.entries != Some(0) {
            lines.push(format!("  {name} {hooked}: {entries} {of}"));
        }
    }
    let idle =
        namespaces.iter().filter(|n| n.hooked == Some(false) && n.entries == Some(0)).count();
    if idle > 0 {
        let idle = if idle == 1 {
            "1 namespace tracks".to_owned()
        } else {
            format!("{idle} namespaces track")
        };
        lines.push(format!("  {idle} nothing"));
    }
    lines.extend(modules.iter().map(|chain| format!("  {chain}")));
    match (needed_by.as_slice(), report.conntrack) {
        ([], Conntrack::Absent) => {}
        ([], _) => lines.push("  nothing was found that needs it".to_owned()),
        (needed_by, _) => {
            lines.push("  it is needed by".to_owned());
            lines.extend(needed_by.iter().map(|need| format!("    {need}")));
        }
    }
    lines.extend(barred_by.iter().map(|barred| format!("  kept from being loaded by {barred}")));
    lines.extend(unknown.iter().map(|unknown| format!("  {unknown}")));
    lines.push(
        "  what a switch's own chip forwards never reaches the kernel, and has tables of its own: \
         they are not seen here"
            .to_owned(),
    );
    lines
}

fn measured(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push("how it is counted".to_owned());
    for signal in &report.signals {
        let by = signal.mechanism.map_or("not measured".to_owned(), |by| format!("by {by}"));
        lines.push(format!("  {:<24}{by}", signal.name));
    }
    lines.push("how exactly".to_owned());
    for figure in &report.figures {
        lines.push(format!("  {:<24}{}", figure.name, figure.exactness));
    }
    if !report.refused.is_empty() {
        lines.push("what would have come first".to_owned());
        lines.extend(report.refused.iter().map(|refused| format!("  {refused}")));
    }
    lines.push("what this machine offers".to_owned());
    for offer in &report.offers {
        let answer = match (&offer.why, offer.offered) {
            (_, true) => "yes".to_owned(),
            (Some(why), false) => format!("no: {why}"),
            (None, false) => "no".to_owned(),
        };
        lines.push(format!("  {:<26}{answer}", offer.name));
    }
    lines.push("privileges".to_owned());
    for capability in &report.capabilities {
        let held = if capability.held { "yes" } else { "no" };
        lines.push(format!("  {:<16}{held:<4}{}", capability.name, capability.purpose));
    }
    match &report.configuration.source {
        Some(source) => {
            lines.push(format!("configuration, from {source}"));
            let options = report.configuration.options.iter();
            let words: Vec<String> = options
                .map(|(name, value)| format!("{}={value}", name.trim_start_matches("CONFIG_")))
                .collect();
            lines.push(format!("  {}", words.join(" ")));
        }
        None => {
            let why = report.configuration.why.as_deref().unwrap_or_default();
            lines.push(format!("configuration: unknown, {why}"));
        }
    }
    lines.push("what would improve it".to_owned());
    match report.advice.as_slice() {
        [] => lines.push("  nothing: this is the best there is".to_owned()),
        advice => lines.extend(advice.iter().map(|advice| format!("  {advice}"))),
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{Capability, Configuration, Figure, File, Offer, Signal, Tracked};

    fn tracked(name: &str, hooked: Option<bool>, entries: Option<u32>) -> Tracked {
        Tracked { name: Some(name.to_owned()), inode: 1, entries, limit: Some(9), hooked }
    }

    #[test]
    fn a_report_reads_from_the_answer_to_its_grounds() {
        let report = Report {
            version: "0.0.0",
            kernel: "6.1.0\u{1b}".to_owned(),
            architecture: "x86_64",
            conntrack: Conntrack::Module,
            capabilities: vec![Capability { name: "CAP_BPF", held: false, purpose: "programs" }],
            configuration: Configuration {
                source: None,
                why: Some("no file".to_owned()),
                options: BTreeMap::new(),
            },
            offers: vec![Offer { name: "tracepoints", offered: false, why: Some("x".to_owned()) }],
            signals: vec![Signal { name: "drops", mechanism: None }],
            figures: vec![Figure { name: "table_full", exactness: "upper bound" }],
            refused: vec!["no drops by fexit: no BTF".to_owned()],
            advice: vec![],
            tracking: Tracking {
                needed_by: vec!["host: nft table ip nat".to_owned()],
                namespaces: vec![
                    tracked("host", Some(true), Some(7)),
                    tracked("a\u{1b}", None, None),
                    tracked("idle", Some(false), Some(0)),
                ],
                ..Tracking::default()
            },
            findings: vec![Finding {
                id: "full",
                severity: Severity::Critical,
                title: "full".to_owned(),
                evidence: vec!["seen".to_owned()],
                fixes: vec![Fix {
                    title: "more".to_owned(),
                    now: vec!["a".to_owned(), "b <<'END'\nc\nEND".to_owned()],
                    files: vec![File { path: "/etc/f".to_owned(), content: "d\n".to_owned() }],
                    breaks: "nothing".to_owned(),
                    undo: vec!["e".to_owned()],
                    expect: "less".to_owned(),
                }],
            }],
        };
        let mut out = Vec::new();
        write(&mut out, &report, 200).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in [
            "on Linux 6.1.0\\u{1b} (x86_64)\n",
            "what is wrong\n1. CRITICAL: full\n   seen\n   -> more\n      now:\n        a\n",
            "b <<'END'\nc\nEND\n      to last, in /etc/f:\n        d\n      expect: less\n",
            "      undo:\n        e\n",
            "  nf_conntrack is loaded as a module\n  host tracks: 7 of 9 entries\n",
            "  a\\u{1b} tracks perhaps: unknown of 9 entries\n  1 namespace tracks nothing\n",
            "  it is needed by\n    host: nft table ip nat\n",
            "  drops                   not measured\n",
            "  table_full              upper bound\n",
            "  no drops by fexit: no BTF\n",
            "  tracepoints               no: x\n",
            "  CAP_BPF         no  programs\n",
            "configuration: unknown, no file\n",
            "  nothing: this is the best there is\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
    }
}

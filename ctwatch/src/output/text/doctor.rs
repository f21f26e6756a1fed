//! The doctor's report.

use std::io::{self, Write};

use super::{offline, wrap::wrapped};
use crate::{
    diagnosis::report::{Conntrack, Finding, Fix, Report, Severity, Tracked, Tracking},
    output::escape::{escaped, verbatim},
};

/// The verdict first, then its grounds.
pub fn write(out: &mut impl Write, report: &Report, columns: usize) -> io::Result<()> {
    let Report { version, kernel, architecture, .. } = report;
    // Of a recording it is not known.
    let architecture = match *architecture {
        "" => String::new(),
        known => format!(" ({known})"),
    };
    let head = match &report.offline {
        None => format!("ctwatch {version} on Linux {kernel}{architecture}"),
        Some(offline) => format!("ctwatch {version} {}", offline::head(offline, kernel)),
    };
    let mut lines = vec![DoctorLine::text(head), DoctorLine::text("findings")];
    if report.findings.is_empty() {
        let all = report.tracking.unknown.is_empty()
            && report.offline.as_ref().is_none_or(|offline| offline.undecided.is_empty());
        let seen = if all { "" } else { " in what could be seen; not all could, see below" };
        lines.push(DoctorLine::text(format!("  nothing was found{seen}")));
    }
    lines.extend(
        report.findings.iter().zip(1..).flat_map(|(finding, number)| said(finding, number)),
    );
    lines.extend(tracked(report).into_iter().map(DoctorLine::text));
    match &report.offline {
        None => lines.extend(measured(report).into_iter().map(DoctorLine::text)),
        Some(offline) => lines.extend(offline::lines(offline).into_iter().map(DoctorLine::text)),
    }
    for line in lines {
        match line {
            DoctorLine::Text(text) => wrapped(out, &escaped(&text), columns)?,
            // To be copied: a line that is cut in two is another command.
            DoctorLine::Verbatim(text) => writeln!(out, "{}", verbatim(&text))?,
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
            DoctorLine::Text(line) => escaped(&line),
            DoctorLine::Verbatim(line) => verbatim(&line),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Words of ours, or a command as it is to be typed.
pub(crate) enum DoctorLine {
    Text(String),
    Verbatim(String),
}

impl DoctorLine {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// What is found, and its fixes.
fn said(finding: &Finding, number: usize) -> Vec<DoctorLine> {
    let mut lines = found(finding, number);
    lines.extend(finding.fixes.iter().flat_map(cure));
    lines
}

/// What is found, without its fixes.
pub(crate) fn found(finding: &Finding, number: usize) -> Vec<DoctorLine> {
    let severity = match finding.severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    let mut lines = vec![DoctorLine::text(format!("{number}. {severity}: {}", finding.title))];
    lines.extend(finding.evidence.iter().map(|line| DoctorLine::text(format!("   {line}"))));
    lines
}

pub(crate) fn cure(fix: &Fix) -> Vec<DoctorLine> {
    let mut lines = vec![DoctorLine::text(format!("   -> {}", fix.title))];
    let indented = |text: &str| {
        // A script that reads to a word of its own is not moved: the word must begin its line.
        let moved = |line: &str| match text.contains('\n') {
            true => line.to_owned(),
            false => format!("        {line}"),
        };
        text.lines().map(moved).map(DoctorLine::Verbatim).collect::<Vec<_>>()
    };
    let part = |lines: &mut Vec<DoctorLine>, name: &str, commands: &[String]| {
        if !commands.is_empty() {
            lines.push(DoctorLine::text(format!("      {name}:")));
            lines.extend(commands.iter().flat_map(|command| indented(command)));
        }
    };
    part(&mut lines, "save the rules", &fix.save);
    part(&mut lines, "arm the undo: it runs by itself after two minutes", &fix.arm);
    part(&mut lines, "now", &fix.now);
    if let Some(elsewhere) = &fix.elsewhere {
        part(&mut lines, &format!("not here: {}", elsewhere.place), &elsewhere.commands);
    }
    if let Some(check) = &fix.check {
        part(&mut lines, "see that it worked", std::slice::from_ref(&check.command));
        lines.push(DoctorLine::text(format!("        prints: {}", check.prints)));
    }
    part(&mut lines, "disarm the undo, if all still works", &fix.disarm);
    for file in &fix.files {
        lines.push(DoctorLine::text(format!("      persist in {}:", file.path)));
        lines.extend(
            file.content.lines().map(|line| DoctorLine::Verbatim(format!("        {line}"))),
        );
    }
    lines.extend(fix.lasts.iter().map(|line| DoctorLine::text(format!("      lasts: {line}"))));
    for (name, text) in [("expect", &fix.expect), ("breaks", &fix.breaks)] {
        if !text.is_empty() {
            lines.push(DoctorLine::text(format!("      {name}: {text}")));
        }
    }
    part(&mut lines, "undo", &fix.undo);
    lines
}

/// Whether, where and what for connections are tracked.
fn tracked(report: &Report) -> Vec<String> {
    let Tracking { needed_by, managed_by, unknown, modules, barred_by, namespaces } =
        &report.tracking;
    let mut lines = vec!["tracking".to_owned()];
    lines.push(match report.conntrack {
        Conntrack::Absent => "  nf_conntrack is not loaded: nothing is tracked".to_owned(),
        Conntrack::BuiltIn => "  nf_conntrack is built into the kernel".to_owned(),
        Conntrack::Module => "  nf_conntrack is loaded as a module".to_owned(),
        Conntrack::Loaded => {
            "  nf_conntrack is loaded; whether as a module cannot be seen here".to_owned()
        }
        Conntrack::Unknown => "  whether nf_conntrack is loaded is not in what was read".to_owned(),
    });
    for namespace in namespaces {
        let name = &namespace.called;
        let hooked = match namespace.hooked {
            Some(true) => "tracks",
            Some(false) => "does not track",
            None => "may be tracking",
        };
        let count =
            |count: Option<u32>| count.map_or("unknown".to_owned(), |count| count.to_string());
        let entries = count(namespace.entries);
        let of = match namespace.limit {
            Some(0) => "entries, and no limit".to_owned(),
            limit => format!("of {} entries", count(limit)),
        };
        // Of those that hold nothing there may be hundreds.
        if namespace.entries != Some(0) {
            lines.push(format!("  {name} {hooked}: {entries} {of}"));
        }
    }
    lines.extend(idle(namespaces));
    lines.extend(modules.iter().map(|chain| format!("  {chain}")));
    match (needed_by.as_slice(), report.conntrack) {
        ([], Conntrack::Absent) => {}
        ([], _) => lines.push("  nothing was found that needs it".to_owned()),
        (needed_by, _) => {
            lines.push("  it is needed by".to_owned());
            lines.extend(alike(needed_by).into_iter().map(|need| format!("    {need}")));
        }
    }
    lines.extend(managed_by.iter().map(|owner| format!("  managed by {owner}")));
    lines.extend(barred_by.iter().map(|barred| format!("  kept from being loaded by {barred}")));
    lines.extend(unknown.iter().map(|unknown| format!("  {unknown}")));
    lines.push(
        "  what a switch's own chip forwards never reaches the kernel, and has tables of its own: \
         they are not seen here"
            .to_owned(),
    );
    lines
}

/// `a: …`, `b: …` and `c: …` as one line, where the same is said of all of them.
fn alike(lines: &[String]) -> Vec<String> {
    const NAMED: usize = 2;
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        let (of, what) = line.split_once(": ").unwrap_or(("", line));
        match groups.iter_mut().find(|(other, _)| *other == what) {
            Some((_, all)) => all.push(of),
            None => groups.push((what, vec![of])),
        }
    }
    let one = |(what, of): (&str, Vec<&str>)| {
        let named = of.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match of.len() {
            _ if named.is_empty() => what.to_owned(),
            0..=NAMED => format!("{named}: {what}"),
            all => format!("{named} and {} more: {what}", all - NAMED),
        }
    };
    groups.into_iter().map(one).collect()
}

/// Namespaces in which there is no entry: one line for all.
fn idle(namespaces: &[Tracked]) -> Option<String> {
    let of = |hooked| {
        let of_it = |one: &&Tracked| one.entries == Some(0) && one.hooked == hooked;
        namespaces.iter().filter(of_it).count()
    };
    let states = [
        (of(Some(true)), "tracking"),
        (of(None), "may be tracking"),
        (of(Some(false)), "not tracking"),
    ];
    let all: usize = states.iter().map(|(count, _)| count).sum();
    let parts = states.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, state)| format!("{count} {state}")).collect();
    let many = if all == 1 { "namespace holds" } else { "namespaces hold" };
    (all > 0).then(|| format!("  {all} {many} no entries ({})", parts.join(", ")))
}

fn measured(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push("mechanisms".to_owned());
    for signal in &report.signals {
        let by = signal.mechanism.map_or("not measured".to_owned(), |by| format!("by {by}"));
        lines.push(format!("  {:<24}{by}", signal.name));
    }
    // What a machine offered is not recorded.
    if report.offers.is_empty() {
        return lines;
    }
    lines.push("exactness".to_owned());
    for figure in &report.figures {
        lines.push(format!("  {:<24}{}", figure.name, figure.exactness));
    }
    if !report.refused.is_empty() {
        lines.push("better mechanisms, unavailable here".to_owned());
        lines.extend(report.refused.iter().map(|refused| format!("  {refused}")));
    }
    lines.push("offered by this machine".to_owned());
    for offer in &report.offers {
        let answer = match (&offer.why, offer.offered) {
            (_, true) => "yes".to_owned(),
            (Some(why), false) => format!("no: {why}"),
            (None, false) => "no".to_owned(),
        };
        lines.push(format!("  {:<26}{answer}", offer.name));
    }
    lines.push("capabilities".to_owned());
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
    lines.push("advice".to_owned());
    match report.advice.as_slice() {
        // How it is counted is one thing, and whether all of it could be looked at is another.
        [] if !report.tracking.unknown.is_empty() => lines
            .push("  nothing about mechanisms; but not all could be seen, see above".to_owned()),
        [] => lines.push("  nothing: this is the best there is".to_owned()),
        advice => lines.extend(advice.iter().map(|advice| format!("  {advice}"))),
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::diagnosis::report::{
        CapabilityReport, Check, ConfigurationReport, File, Offer, Promise, SignalReport, Tracked,
        TrackedNetns,
    };

    fn tracked(name: &str, hooked: Option<bool>, entries: Option<u32>) -> Tracked {
        Tracked {
            called: name.to_owned(),
            netns: TrackedNetns {
                cookie: None,
                inode: 1,
                name: Some(name.to_owned()),
                pod: None,
                namespace: None,
                container: None,
            },
            entries,
            limit: Some(9),
            hooked,
        }
    }

    #[test]
    fn what_is_said_of_many_is_one_line() {
        let lines = ["a: rule", "b: rule", "x: other", "c: rule", "alone"].map(str::to_owned);
        assert_eq!(alike(&lines), ["a, b and 1 more: rule", "x: other", "alone"]);
    }

    #[test]
    fn what_was_not_seen_is_not_the_best() {
        let mut report = report();
        report.tracking.unknown.push("cannot enter /run/netns/rt".to_owned());
        let lines = measured(&report);
        assert!(!lines.iter().any(|line| line.contains("best there is")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("not all could be seen")), "{lines:?}");
    }

    #[test]
    fn a_report_reads_from_the_answer_to_its_grounds() {
        let report = report();
        let mut out = Vec::new();
        write(&mut out, &report, 200).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in [
            "on Linux 6.1.0\\u{1b} (x86_64)\n",
            "findings\n1. CRITICAL: full\n   seen\n   -> more\n",
            "      save the rules:\n        s\n",
            "      arm the undo: it runs by itself after two minutes:\n        r\n      now:\n        a\n",
            "b <<'END'\nc\nEND\n      see that it worked:\n        k\n        prints: 1\n",
            "      disarm the undo, if all still works:\n        t\n      persist in /etc/f:\n        d\n",
            "      lasts: for ever\n      expect: less\n",
            "  managed by ufw (chain ufw-x)\n",
            "      undo:\n        e\n",
            "  nf_conntrack is loaded as a module\n  host tracks: 7 of 9 entries\n",
            "  a\\u{1b} may be tracking: unknown of 9 entries\n  1 namespace holds no entries (1 not tracking)\n",
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

    fn report() -> Report {
        Report {
            census: None,
            version: "0.0.0",
            kernel: "6.1.0\u{1b}".to_owned(),
            architecture: "x86_64",
            conntrack: Conntrack::Module,
            capabilities: vec![CapabilityReport {
                name: "CAP_BPF",
                held: false,
                purpose: "programs",
            }],
            configuration: ConfigurationReport {
                source: None,
                why: Some("no file".to_owned()),
                options: BTreeMap::new(),
            },
            offers: vec![Offer { name: "tracepoints", offered: false, why: Some("x".to_owned()) }],
            signals: vec![SignalReport { name: "drops", mechanism: None }],
            figures: vec![Promise { name: "table_full", exactness: "upper bound" }],
            refused: vec!["no drops by fexit: no BTF".to_owned()],
            advice: vec![],
            offline: None,
            tracking: Tracking {
                needed_by: vec!["host: nft table ip nat".to_owned()],
                managed_by: vec!["ufw (chain ufw-x)".to_owned()],
                // As long as nothing is unknown.
                unknown: vec![],
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
                    effect: None,
                    title: "more".to_owned(),
                    save: vec!["s".to_owned()],
                    arm: vec!["r".to_owned()],
                    now: vec!["a".to_owned(), "b <<'END'\nc\nEND".to_owned()],
                    check: Some(Check { command: "k".to_owned(), prints: "1".to_owned() }),
                    disarm: vec!["t".to_owned()],
                    lasts: vec!["for ever".to_owned()],
                    elsewhere: None,
                    files: vec![File { path: "/etc/f".to_owned(), content: "d\n".to_owned() }],
                    breaks: "nothing".to_owned(),
                    undo: vec!["e".to_owned()],
                    expect: "less".to_owned(),
                }],
                about: Vec::new(),
            }],
        }
    }
}

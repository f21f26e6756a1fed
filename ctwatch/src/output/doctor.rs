//! The doctor's report as text.

use std::io::{self, Write};

use super::{escape::escaped, text::wrapped};
use crate::report::{Conntrack, Report};

pub fn write(out: &mut impl Write, report: &Report, columns: usize) -> io::Result<()> {
    for line in lines(report) {
        wrapped(out, &escaped(&line), columns)?;
    }
    Ok(())
}

fn lines(report: &Report) -> Vec<String> {
    let Report { version, kernel, architecture, .. } = report;
    let mut lines = vec![
        format!("ctwatch {version} on Linux {kernel} ({architecture})"),
        match report.conntrack {
            Conntrack::Absent => "nf_conntrack is not loaded: nothing is tracked".to_owned(),
            Conntrack::BuiltIn => "nf_conntrack is built into the kernel".to_owned(),
            Conntrack::Module => "nf_conntrack is loaded as a module".to_owned(),
        },
    ];
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
    use crate::report::{Capability, Configuration, Figure, Offer, Signal};

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
        };
        let mut out = Vec::new();
        write(&mut out, &report, 200).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in [
            "on Linux 6.1.0\\u{1b} (x86_64)\n",
            "nf_conntrack is loaded as a module\n",
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

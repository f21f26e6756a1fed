//! What the doctor finds, as rows; and what of it is copied.

use super::{
    grid::wide,
    look::Tone,
    state::{Pane, TopState},
};
use crate::{
    diagnosis::report::{Finding, Fix, Severity},
    output::{
        escape::verbatim,
        text::doctor::{DoctorLine, cure, found},
    },
};

pub struct AdviceRow {
    pub text: String,
    pub tone: Tone,
    pub finding: usize,
    /// Of that finding.
    pub fix: Option<usize>,
}

/// What is said of a finding that stays, whatever the screen is narrowed to.
const OF_HOST: &str = "   (of the host as a whole)";

/// Words break between words; a command never does: a line that is cut in two is another command.
///
/// `is_narrowed`: to one namespace; what is about the host as a whole says so then.
pub fn rows(findings: &[Finding], columns: u16, is_narrowed: bool) -> Vec<AdviceRow> {
    let mut rows = Vec::new();
    for (number, finding) in findings.iter().enumerate() {
        let tone = match finding.severity {
            Severity::Critical => Tone::Bad,
            Severity::Warning => Tone::Warning,
            Severity::Info => Tone::Heading,
        };
        let mut add = |line: DoctorLine, tone, fix| {
            let texts = match line {
                DoctorLine::Text(text) => wrapped(&text, columns.saturating_sub(1)),
                DoctorLine::Verbatim(text) => vec![verbatim(&text)],
            };
            rows.extend(texts.into_iter().map(|text| AdviceRow {
                text,
                tone,
                finding: number,
                fix,
            }));
        };
        for (at, line) in found(finding, number + 1).into_iter().enumerate() {
            add(line, if at == 0 { tone } else { Tone::Plain }, None);
            if at == 0 && is_narrowed && finding.about.is_empty() {
                add(DoctorLine::Text(OF_HOST.to_owned()), Tone::Faint, None);
            }
        }
        for (at, fix) in finding.fixes.iter().enumerate() {
            for (line, of) in cure(fix).into_iter().zip(0..) {
                let tone = match (of, &line) {
                    (0, _) => Tone::Heading,
                    (_, DoctorLine::Verbatim(_)) => Tone::Good,
                    _ => Tone::Plain,
                };
                add(line, tone, Some(at));
            }
        }
    }
    rows
}

/// Findings in which the text occurs that rows are filtered by, whole.
pub fn matching(mut rows: Vec<AdviceRow>, state: &TopState) -> Vec<AdviceRow> {
    let within = rows.iter().filter(|row| state.is_filtered_in(Pane::Doctor, &row.text));
    let found: Vec<usize> = within.map(|row| row.finding).collect();
    rows.retain(|row| found.contains(&row.finding));
    rows
}

fn wrapped(text: &str, columns: u16) -> Vec<String> {
    let body = text.trim_start();
    let indent = &text[..text.len() - body.len()];
    let mut lines = vec![indent.to_owned()];
    let mut is_begun = false;
    for word in body.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if is_begun && wide(line) + 1 + wide(word) > columns {
            lines.push(format!("{indent}  {word}"));
        } else {
            if is_begun {
                line.push(' ');
            }
            line.push_str(word);
        }
        is_begun = true;
    }
    lines
}

/// The fix of this row, or else the first of its finding.
pub fn fix<'a>(findings: &'a [Finding], row: &AdviceRow) -> Option<&'a Fix> {
    findings.get(row.finding)?.fixes.get(row.fix.unwrap_or(0))
}

/// What is to be typed, in its order: what saves, what undoes it by itself, and then the fix.
pub fn commands(fix: &Fix) -> String {
    let elsewhere = fix.elsewhere.as_ref().map_or(&[][..], |elsewhere| &elsewhere.commands);
    let all = [&fix.save[..], &fix.arm, &fix.now, elsewhere];
    all.concat().iter().map(|command| format!("{command}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            id: "x",
            severity: Severity::Critical,
            title: "the table of rt is full and drops packets".to_owned(),
            evidence: vec!["1000 of 1000 entries".to_owned()],
            fixes: vec![Fix {
                title: "stop tracking".to_owned(),
                save: vec!["nft list ruleset > /root/before".to_owned()],
                arm: vec!["(sleep 120; nft -f /root/before) &".to_owned()],
                now: vec!["nft add rule a very long rule that is longer than a row".to_owned()],
                ..Fix::default()
            }],
            about: Vec::new(),
        }
    }

    #[test]
    fn a_fix_is_copied_with_its_undo() {
        let findings = [finding()];
        let rows = rows(&findings, 30, false);
        for row in &rows {
            let copied = commands(fix(&findings, row).unwrap());
            let lines: Vec<&str> = copied.lines().collect();
            assert_eq!(lines.len(), 3, "{copied}");
            assert!(
                lines[1].starts_with("(sleep 120") && lines[2].starts_with("nft add"),
                "{copied}"
            );
        }
    }

    #[test]
    fn of_the_host_is_marked_where_it_is_narrowed() {
        let findings = [finding(), Finding { about: vec![7], ..finding() }];
        let marked: Vec<usize> = rows(&findings, 80, true)
            .iter()
            .filter(|row| row.text == OF_HOST)
            .map(|row| row.finding)
            .collect();
        assert_eq!(marked, [0]);
        assert!(rows(&findings, 80, false).iter().all(|row| row.text != OF_HOST));
    }

    #[test]
    fn words_are_wrapped_and_commands_are_not() {
        let findings = [finding()];
        let rows = rows(&findings, 30, false);
        assert_eq!(rows[0].text, "1. CRITICAL: the table of rt");
        assert_eq!(rows[1].text, "  is full and drops packets");
        assert!(rows.iter().any(|row| row.text.ends_with("longer than a row")));
    }
}

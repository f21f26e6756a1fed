//! Rules for Prometheus: sound, each alert tested both ways, each with a runbook.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Needs, Test, dist, documents, list, read, root, said, text};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "rules_are_sound", needs: &[Needs::Program("promtool")], run: sound },
    Test {
        name: "alerts_fire_and_stay_silent_when_they_should",
        needs: &[Needs::Program("promtool")],
        run: fire,
    },
    Test { name: "each_alert_is_tested_both_ways", needs: &[Needs::Nothing], run: tested },
    Test { name: "each_alert_says_what_to_do", needs: &[Needs::Nothing], run: annotated },
    Test { name: "no_increase_is_of_gone_namespaces", needs: &[Needs::Nothing], run: none_of_gone },
];

pub(crate) const FILE: &str = "prometheus/ctwatch.rules.yml";

pub(crate) fn rules() -> Result<Vec<Value>> {
    let file = documents(&read(&dist(FILE))?)?;
    let mut rules = Vec::new();
    for group in list(&file[0], "groups")? {
        rules.extend(list(group, "rules")?.iter().cloned());
    }
    ensure!(rules.len() > 20, "{}", rules.len());
    Ok(rules)
}

fn alerts() -> Result<Vec<Value>> {
    Ok(rules()?.into_iter().filter(|rule| rule["alert"].is_string()).collect())
}

fn sound() -> Result<()> {
    let said =
        said(Command::new("promtool").args(["check", "rules", "--lint-fatal"]).arg(dist(FILE)))?;
    ensure!(said.contains("SUCCESS"), "{said}");
    Ok(())
}

fn tests() -> Result<Vec<std::path::PathBuf>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(dist("prometheus/tests"))? {
        tests.push(entry?.path());
    }
    tests.sort();
    ensure!(tests.len() > 4, "{tests:?}");
    Ok(tests)
}

fn fire() -> Result<()> {
    said(Command::new("promtool").args(["test", "rules"]).args(tests()?)).map(|_| ())
}

/// An alert that no test has firing may never fire; one that no test has silent may always.
fn tested() -> Result<()> {
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for path in tests()? {
        for file in documents(&read(&path)?)? {
            for test in list(&file, "tests")? {
                for case in test["alert_rule_test"].as_array().into_iter().flatten() {
                    let fires =
                        case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
                    let set = if fires { &mut firing } else { &mut silent };
                    set.insert(text(case, "alertname")?.to_owned());
                }
                // All of them at once.
                for case in test["promql_expr_test"].as_array().into_iter().flatten() {
                    if text(case, "expr")? == "ALERTS" {
                        silent.insert("*".to_owned());
                    }
                }
            }
        }
    }
    ensure!(silent.contains("*"), "no test has all alerts silent");
    for alert in alerts()? {
        let name = text(&alert, "alert")?;
        ensure!(firing.contains(name), "no test has {name} firing");
    }
    Ok(())
}

fn annotated() -> Result<()> {
    let alerts = alerts()?;
    for alert in &alerts {
        let name = text(alert, "alert")?;
        let severity = text(&alert["labels"], "severity")?;
        ensure!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let notes = &alert["annotations"];
        ensure!(text(notes, "summary")?.contains("{{ $labels.instance }}"), "{name}: where?");
        let description = text(notes, "description")?;
        let types =
            description.contains("type: sudo ctwatch ") || description.contains("; sudo ctwatch ");
        ensure!(types, "{name} does not say what to type");
        ensure!(!description.contains("--netns"), "{name}: a name in a command is an injection");
        let expression = text(alert, "expr")?;
        let of_namespaces = expression.contains("netns:") || expression.contains("netns!=");
        let host_wide = expression.contains("without (netns)");
        if of_namespaces && !host_wide {
            ensure!(description.contains("{{ $labels.netns }}"), "{name}: which namespace?");
        }
        let page = text(notes, "runbook_url")?;
        let page = read(&root().join(page)).with_context(|| format!("the runbook of {name}"))?;
        ensure!(page.contains(name), "the runbook does not know {name}");
        for heading in ["\n## Look\n", "\n## Do\n", "\n## Do not\n"] {
            ensure!(page.contains(heading), "the runbook of {name} has no {heading:?}");
        }
    }
    // No page without an alert.
    for entry in fs::read_dir(root().join("docs/runbooks"))? {
        let path = format!("docs/runbooks/{}", entry?.file_name().display());
        let of = |alert: &Value| alert["annotations"]["runbook_url"] == path.as_str();
        ensure!(alerts.iter().any(of), "no alert leads to {path}");
    }
    Ok(())
}

/// When a namespace goes, its totals are added to those of the gone ones at once, which is no increase.
fn none_of_gone() -> Result<()> {
    const OF_NO_NAMESPACE: [&str; 1] = ["ctwatch_probe_lost_total"];
    let queries = crate::queries::all()?;
    for (place, expression) in &queries {
        for (at, _) in expression.match_indices("ctwatch_") {
            let rest = &expression[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = &rest[..end];
            let before = expression[..at].trim_end();
            let counts = before.ends_with("rate(") || before.ends_with("increase(");
            if !counts
                || !name.ends_with("_total")
                || name.starts_with("ctwatch_process_")
                || OF_NO_NAMESPACE.contains(&name)
            {
                continue;
            }
            let matchers = rest[end..].split('}').next().unwrap_or_default();
            ensure!(matchers.contains("netns!=\"(gone)\""), "{place}: {name}: {expression}");
        }
    }
    Ok(())
}

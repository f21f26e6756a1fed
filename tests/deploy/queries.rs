//! What the dashboard and the rules ask: Prometheus understands it, and it asks for series that there are.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Needs, Test, list,
    panels::{self, Query, dashboard},
    read, root,
    rules::rules,
    said, text,
};

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "each_query_is_understood",
        needs: &[Needs::Program("promtool")],
        run: understood,
    },
    Test { name: "queries_ask_only_for_documented_series", needs: &[Needs::Nothing], run: known },
    Test { name: "each_series_has_a_place_on_the_dashboard", needs: &[Needs::Nothing], run: shown },
    Test { name: "panels_do_not_overlap", needs: &[Needs::Nothing], run: laid_out },
];

fn panels_of(dashboard: &Value) -> Result<Vec<&Value>> {
    Ok(list(dashboard, "panels")?.iter().filter(|panel| panel["type"] != "row").collect())
}

/// Each expression of the dashboard, and where it stands.
pub(crate) fn panel_queries() -> Result<Vec<(String, String)>> {
    const INTERVAL: &str = "1m";
    let place = |query: Query| (format!("panel {:?}", query.panel), query.expression);
    let mut queries: Vec<_> = panels::queries(INTERVAL)?.into_iter().map(place).collect();
    for annotation in list(&dashboard()?["annotations"], "list")? {
        let place = format!("annotation {:?}", text(annotation, "name")?);
        queries.push((place, panels::filled(&annotation["expr"], INTERVAL)?));
    }
    Ok(queries)
}

/// And of the rules.
pub(crate) fn all() -> Result<Vec<(String, String)>> {
    let mut queries = panel_queries()?;
    for rule in rules()? {
        let name = rule["alert"].as_str().or_else(|| rule["record"].as_str()).context("no name")?;
        queries.push((format!("rule {name}"), text(&rule, "expr")?.to_owned()));
    }
    Ok(queries)
}

/// As rules of one file: promtool names those that it cannot parse.
fn understood() -> Result<()> {
    let rule = |(number, (_, expression)): (usize, (String, String))| json!({ "record": format!("query:{number}"), "expr": expression });
    let rules: Vec<Value> = all()?.into_iter().enumerate().map(rule).collect();
    let file = tempfile::Builder::new().suffix(".yml").tempfile()?;
    // JSON is YAML.
    let groups = json!({ "groups": [{ "name": "all", "rules": rules }] });
    fs::write(file.path(), groups.to_string())?;
    said(Command::new("promtool").args(["check", "rules"]).arg(file.path())).map(|_| ())
}

/// Words of ctwatch's, quoted or not.
fn names(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_of_name(c));
    let names =
        words.filter(|word| word.starts_with("ctwatch_") || word.starts_with("netns:ctwatch_"));
    names.map(str::to_owned).collect()
}

/// By the page of the exporter.
fn documented() -> Result<BTreeSet<String>> {
    let page = read(&root().join("docs/serve.md"))?;
    let names = names(&page);
    ensure!(names.len() > 30, "docs/serve.md names {} series", names.len());
    Ok(names)
}

fn known() -> Result<()> {
    let documented = documented()?;
    let mut records = BTreeSet::new();
    for rule in rules()? {
        records.extend(rule["record"].as_str().map(str::to_owned));
    }
    for (place, expression) in all()? {
        for name in names(&expression) {
            ensure!(
                documented.contains(&name) || records.contains(&name),
                "{place} asks for {name}"
            );
        }
    }
    Ok(())
}

/// What is exported and shown nowhere is forgotten.
fn shown() -> Result<()> {
    // A bound's width is shown for drops; those of the others say the same of less.
    const SPARED: [&str; 4] = [
        "ctwatch_insertions_uncertain",
        "ctwatch_removals_uncertain",
        "ctwatch_evictions_uncertain",
        "ctwatch_dropped_uncertain",
    ];
    let mut asked = BTreeSet::new();
    for (_, expression) in panel_queries()? {
        asked.extend(names(&expression));
    }
    let left: Vec<_> = documented()?
        .into_iter()
        .filter(|name| !asked.contains(name) && !SPARED.contains(&name.as_str()))
        .collect();
    ensure!(left.is_empty(), "no panel shows {left:?}");
    Ok(())
}

fn laid_out() -> Result<()> {
    let dashboard = dashboard()?;
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "panels")? {
        let title = text(panel, "title")?;
        ensure!(
            ids.insert(panel["id"].as_u64().context("no id")?),
            "{title}: its id is there twice"
        );
        let place = |key: &str| panel["gridPos"][key].as_u64().context("no place");
        let (x, y, w, h) = (place("x")?, place("y")?, place("w")?, place("h")?);
        ensure!(w > 0 && h > 0 && x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "{title} covers another panel");
        }
        if panel["type"] != "row" {
            ensure!(!text(panel, "description")?.is_empty(), "{title} does not say what it shows");
            let none = &panel["fieldConfig"]["defaults"]["noValue"];
            ensure!(none == "not measured", "{title}: what is not measured is not 0: {none}");
        }
    }
    // Five seconds are enough for the first row.
    let first: Vec<_> =
        panels_of(&dashboard)?.into_iter().take(6).map(|panel| &panel["type"]).collect();
    ensure!(first.iter().all(|kind| *kind == "stat"), "{first:?}");
    Ok(())
}

//! What the panels of the dashboard ask Prometheus.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub(crate) const DASHBOARD: &str = "../dist/grafana/ctwatch.json";

/// One target of a panel, with what Grafana puts in.
pub(crate) struct Query {
    /// The panel's title.
    pub(crate) panel: String,
    pub(crate) expression: String,
}

pub(crate) fn dashboard() -> Result<Value> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(DASHBOARD);
    let text = std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    Ok(serde_json::from_str(&text)?)
}

pub(crate) fn queries(rate_interval: &str) -> Result<Vec<Query>> {
    let dashboard = dashboard()?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let panel = panel["title"].as_str().context("no title")?.to_owned();
            queries.push(Query { panel, expression: filled(&target["expr"], rate_interval)? });
        }
    }
    ensure!(queries.len() > 30, "{}", queries.len());
    Ok(queries)
}

/// Of all hosts and namespaces.
pub(crate) fn filled(expression: &Value, rate_interval: &str) -> Result<String> {
    let expression = expression.as_str().context("no expression")?;
    let filled = expression.replace("$__rate_interval", rate_interval);
    let filled = filled.replace("$instance", ".*").replace("$netns", ".*");
    ensure!(!filled.contains('$'), "an unknown variable: {filled}");
    Ok(filled)
}

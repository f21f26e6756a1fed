//! What a monitoring server makes of a plugin's output: the strictest reading of the guidelines
//! where servers differ.
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use anyhow::{Context, Result, bail, ensure};

/// One line of output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// OK, WARNING, CRITICAL or UNKNOWN.
    pub state: String,
    pub text: String,
    pub metrics: Vec<Metric>,
}

/// `'label'=value[UOM];warn;crit;min;max`
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub label: String,
    /// `None`: `U`, it could not be determined.
    pub value: Option<f64>,
    pub unit: String,
    pub warning: Option<Range>,
    pub critical: Option<Range>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

/// All is well from `start` to `end`, both included; with `@` before it, all is well elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: f64,
    pub end: f64,
    pub inside: bool,
}

impl Range {
    pub fn alerts(&self, value: f64) -> bool {
        (self.start..=self.end).contains(&value) == self.inside
    }
}

impl Output {
    pub fn metric(&self, label: &str) -> Result<&Metric> {
        let metric = self.metrics.iter().find(|metric| metric.label == label);
        metric.with_context(|| format!("no {label:?} in {self:?}"))
    }

    /// The number that a plugin exits with in this state.
    pub fn code(&self) -> i32 {
        ["OK", "WARNING", "CRITICAL"]
            .iter()
            .position(|state| *state == self.state)
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or(3)
    }
}

impl Metric {
    /// What the thresholds say of the value: the exit code it alone would have; 3 where it is not
    /// known.
    pub fn code(&self) -> i32 {
        let alerts = |range: Option<Range>, value| range.is_some_and(|range| range.alerts(value));
        match self.value {
            None => 3,
            Some(value) if alerts(self.critical, value) => 2,
            Some(value) if alerts(self.warning, value) => 1,
            Some(_) => 0,
        }
    }
}

/// All that a plugin named so printed.
pub fn parse(name: &str, printed: &str) -> Result<Output> {
    let line = printed.strip_suffix('\n').context("the line does not end")?;
    ensure!(!line.chars().any(char::is_control), "more than one line, or it is not plain");
    let (said, data) = match line.split_once('|') {
        Some((said, data)) => (said, Some(data)),
        None => (line, None),
    };
    let (begin, text) = said.split_once(" - ").context("no text after the state")?;
    let state = begin.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
    let state = state.with_context(|| format!("{begin:?} does not begin with {name}"))?;
    ensure!(["OK", "WARNING", "CRITICAL", "UNKNOWN"].contains(&state), "{state:?} is no state");
    ensure!(!text.trim().is_empty(), "it says nothing");
    let metrics: Vec<Metric> = data.map(metrics).transpose()?.unwrap_or_default();
    for (at, metric) in metrics.iter().enumerate() {
        let twice = metrics[..at].iter().any(|other| other.label == metric.label);
        ensure!(!twice, "{:?} is there twice", metric.label);
    }
    Ok(Output { state: state.to_owned(), text: text.trim().to_owned(), metrics })
}

fn metrics(data: &str) -> Result<Vec<Metric>> {
    ensure!(!data.contains('|'), "numbers begin once");
    let mut rest = data.strip_prefix(' ').context("no space after the bar")?;
    let mut metrics = Vec::new();
    loop {
        let (label, after) = label(rest)?;
        let (fields, after) = after.split_once(' ').unwrap_or((after, ""));
        metrics.push(metric(label, fields).with_context(|| format!("{label:?}={fields}"))?);
        if after.is_empty() {
            ensure!(rest.ends_with(fields), "a space at the end");
            return Ok(metrics);
        }
        rest = after;
    }
}

/// The label, and what comes after the equals sign.
fn label(text: &str) -> Result<(&str, &str)> {
    let (label, after) = match text.strip_prefix('\'') {
        Some(quoted) => {
            let (label, after) = quoted.split_once('\'').context("a quote without its other")?;
            (label, after.strip_prefix('=').context("no equals sign after a quoted label")?)
        }
        None => text.split_once('=').context("a label without a value")?,
    };
    let quoted = text.starts_with('\'');
    ensure!(!label.is_empty() && !label.contains(['=', '\'']), "{label:?} is no label");
    ensure!(quoted || !label.contains(' '), "{label:?} wants quotes");
    Ok((label, after))
}

fn metric(label: &str, fields: &str) -> Result<Metric> {
    let fields: Vec<&str> = fields.split(';').collect();
    ensure!(fields.len() <= 5, "more than five fields");
    let field = |at: usize| fields.get(at).copied().filter(|field| !field.is_empty());
    let value = field(0).context("no value")?;
    let (value, unit) = match value {
        "U" => (None, ""),
        _ => {
            let end = value.find(|c: char| !is_of_numbers(c)).unwrap_or(value.len());
            (Some(number(&value[..end])?), &value[end..])
        }
    };
    ensure!(
        ["", "s", "ms", "us", "%", "B", "KB", "MB", "GB", "TB", "c"].contains(&unit),
        "{unit:?} is no unit"
    );
    Ok(Metric {
        label: label.to_owned(),
        value,
        unit: unit.to_owned(),
        warning: field(1).map(range).transpose()?,
        critical: field(2).map(range).transpose()?,
        min: field(3).map(number).transpose()?,
        max: field(4).map(number).transpose()?,
    })
}

/// `[@]start:end`
fn range(text: &str) -> Result<Range> {
    let (text, inside) = match text.strip_prefix('@') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (start, end) = match text.split_once(':') {
        Some(("~", end)) => (f64::NEG_INFINITY, end),
        Some((start, end)) => (number(start)?, end),
        None => (0.0, text),
    };
    let end = match (end, text.contains(':')) {
        ("", true) => f64::INFINITY,
        (end, _) => number(end)?,
    };
    ensure!(start <= end, "{text:?} ends before it begins");
    Ok(Range { start, end, inside })
}

fn is_of_numbers(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c == '-'
}

fn number(text: &str) -> Result<f64> {
    if text.is_empty() || !text.chars().all(is_of_numbers) {
        bail!("{text:?} is no number");
    }
    text.parse().with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_of_the_guidelines() {
        let line = "DISK OK - free space: / 3326 MB (56%) | '/'=2643MB;5948;5958;0;5968 \
                    'in use'=12.5%;@10:20;~:-5 x=U\n";
        let output = parse("DISK", line).unwrap();
        assert_eq!((output.state.as_str(), output.code()), ("OK", 0));
        assert_eq!(output.text, "free space: / 3326 MB (56%)");
        let root = output.metric("/").unwrap();
        assert_eq!((root.value, root.unit.as_str(), root.max), (Some(2643.0), "MB", Some(5968.0)));
        assert_eq!(root.code(), 0);
        let used = output.metric("in use").unwrap();
        assert_eq!(used.warning, Some(Range { start: 10.0, end: 20.0, inside: true }));
        assert_eq!(used.code(), 2);
        assert_eq!(output.metric("x").unwrap().code(), 3);
    }

    #[test]
    fn ranges_alert_outside_of_them() {
        for (text, good, bad) in [
            ("10", &[0.0, 10.0][..], &[-0.1, 10.1][..]),
            ("10:", &[10.0, 1e9], &[9.9]),
            ("~:10", &[-1e9, 10.0], &[10.1]),
            ("10:20", &[10.0, 20.0], &[9.9, 20.1]),
            ("@10:20", &[9.9, 20.1], &[10.0, 20.0]),
        ] {
            let range = range(text).unwrap();
            assert!(good.iter().all(|value| !range.alerts(*value)), "{text}");
            assert!(bad.iter().all(|value| range.alerts(*value)), "{text}");
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for line in [
            "DISK OK - fine",
            "DISK OK - fine\nmore\n",
            "DISK FINE - fine\n",
            "DISC OK - fine\n",
            "DISK OK\n",
            "DISK OK - a\u{1b}[2J\n",
            "DISK OK - fine |a=1\n",
            "DISK OK - fine | a=1 | b=2\n",
            "DISK OK - fine | a=1 \n",
            "DISK OK - fine | a b=1\n",
            "DISK OK - fine | 'it''s'=1\n",
            "DISK OK - fine | 'a=b'=1\n",
            "DISK OK - fine | 'a=1\n",
            "DISK OK - fine | a=\n",
            "DISK OK - fine | a=1,5\n",
            "DISK OK - fine | a=1e3\n",
            "DISK OK - fine | a=1parsec\n",
            "DISK OK - fine | a=1;2;3;4;5;6\n",
            "DISK OK - fine | a=1;20:10\n",
            "DISK OK - fine | a=1;;;x\n",
            "DISK OK - fine | a=1 a=2\n",
        ] {
            assert!(parse("DISK", line).is_err(), "{line:?}");
        }
    }
}

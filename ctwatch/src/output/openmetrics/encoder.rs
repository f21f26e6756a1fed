//! Families of metrics, and their samples, in either format.

use std::fmt::{Display, Write};

use super::format::Format;
use crate::output::escape::escaped;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    /// In the older format a gauge.
    Info,
}

pub(super) struct MetricsWriter {
    format: Format,
    out: String,
    /// The family that is being written, and what is to be said of it before its first sample.
    family: Family,
}

#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    is_begun: bool,
}

impl MetricsWriter {
    pub(super) fn new(format: Format) -> Self {
        let family = Family { name: "", kind: MetricKind::Gauge, help: "", is_begun: true };
        Self { format, out: String::with_capacity(32 << 10), family }
    }

    /// All samples until the next family are of this one. One without samples is not spoken of. `name` is that
    /// of its samples.
    pub(super) fn family(&mut self, name: &'static str, kind: MetricKind, help: &'static str) {
        self.family = Family { name, kind, help, is_begun: false };
    }

    /// `labels`: as [`Labels`] writes them.
    pub(super) fn sample(&mut self, labels: &Labels, value: impl Into<SampleValue>) {
        if !self.family.is_begun {
            self.begin();
        }
        self.out.push_str(self.family.name);
        if !labels.0.is_empty() {
            // A String takes all that is written into it.
            let _ = write!(self.out, "{{{}}}", labels.0);
        }
        let _ = writeln!(self.out, " {}", value.into());
    }

    fn begin(&mut self) {
        self.family.is_begun = true;
        let Family { name, kind, help, .. } = self.family;
        let (name, kind) = match (self.format, kind) {
            (Format::Text, MetricKind::Counter) => (name, "counter"),
            (Format::OpenMetrics, MetricKind::Counter) => {
                (name.trim_end_matches("_total"), "counter")
            }
            (Format::OpenMetrics, MetricKind::Info) => (name.trim_end_matches("_info"), "info"),
            (Format::Text, MetricKind::Info) | (_, MetricKind::Gauge) => (name, "gauge"),
        };
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// Labels as they are written, without the braces.
#[derive(Clone, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// What does not print is written out, as on a terminal; then as both formats want it.
    #[must_use]
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut out = String::with_capacity(self.0.len() + name.len() + value.len() + 4);
        out.push_str(&self.0);
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for character in escaped(value).chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                other => out.push(other),
            }
        }
        out.push('"');
        Self(out)
    }
}

#[derive(Clone, Copy)]
pub(super) enum SampleValue {
    Count(u64),
    Number(f64),
}

impl Display for SampleValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Number(number) if *number == f64::INFINITY => f.write_str("+Inf"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl From<u64> for SampleValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for SampleValue {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<bool> for SampleValue {
    fn from(is: bool) -> Self {
        Self::Count(is.into())
    }
}

impl From<f64> for SampleValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// `None`: nothing bounds it.
impl From<Option<u64>> for SampleValue {
    fn from(count: Option<u64>) -> Self {
        count.map_or(Self::Number(f64::INFINITY), Self::Count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_says_what_it_is_in_each_format() {
        let page = |format| {
            let mut encoder = MetricsWriter::new(format);
            encoder.family("a_total", MetricKind::Counter, "A.");
            encoder.sample(&Labels::default(), 3_u64);
            encoder.family("b_info", MetricKind::Info, "B.");
            encoder.sample(&Labels::default().with("x", "1").with("y", "2"), true);
            encoder.family("none", MetricKind::Gauge, "None.");
            encoder.family("c_seconds", MetricKind::Gauge, "C.");
            encoder.sample(&Labels::default(), 0.25);
            encoder.sample(&Labels::default().with("x", "1"), None::<u64>);
            encoder.finish()
        };
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total 3\n\
                    # HELP b_info B.\n# TYPE b_info gauge\nb_info{x=\"1\",y=\"2\"} 1\n\
                    # HELP c_seconds C.\n# TYPE c_seconds gauge\nc_seconds 0.25\n\
                    c_seconds{x=\"1\"} +Inf\n";
        assert_eq!(page(Format::Text), text);
        let openmetrics = "# HELP a A.\n# TYPE a counter\na_total 3\n\
                           # HELP b B.\n# TYPE b info\nb_info{x=\"1\",y=\"2\"} 1\n\
                           # HELP c_seconds C.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\n\
                           c_seconds 0.25\nc_seconds{x=\"1\"} +Inf\n# EOF\n";
        assert_eq!(page(Format::OpenMetrics), openmetrics);
    }

    #[test]
    fn a_name_ends_no_label() {
        let labels = |value| Labels::default().with("n", value).0;
        assert_eq!(labels("a\"} 1\n# EOF\nb{c=\""), "n=\"a\\\"} 1\\\\n# EOF\\\\nb{c=\\\"\"");
        assert_eq!(labels("\u{1b}[2J\\\u{202e}"), "n=\"\\\\u{1b}[2J\\\\\\\\\\\\u{202e}\"");
    }
}

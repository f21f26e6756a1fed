//! The two formats of text in which Prometheus reads metrics, and which of them a client wants.

/// Prometheus 3 refuses what has another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
    OpenMetrics,
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
    Text,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a client that accepts this gets: of those that it likes best, OpenMetrics; the older text where it
/// likes neither, or says nothing.
pub fn negotiated(accept: &str) -> Format {
    let mut best: Option<(u32, Format)> = None;
    for (quality, format) in accept.split(',').filter_map(wish) {
        let is_better = best.is_none_or(|(before, of)| {
            quality > before
                || quality == before && (of, format) == (Format::Text, Format::OpenMetrics)
        });
        if quality > 0 && is_better {
            best = Some((quality, format));
        }
    }
    best.map_or(Format::Text, |(_, format)| format)
}

/// One of what a client accepts, with how much it likes it in thousandths.
fn wish(part: &str) -> Option<(u32, Format)> {
    let mut parts = part.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut version) = (1000, None);
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = thousandths(value.trim())?,
            "version" => version = Some(value.trim().trim_matches('"')),
            _ => {}
        }
    }
    let format = match (kind.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Format::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Format::Text,
        _ => return None,
    };
    Some((quality, format))
}

/// `0.5` is 500; what is no such number is no wish.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_number = rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let whole = match whole {
        "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let rest: u32 = if rest.is_empty() { 0 } else { format!("{rest:0<3}").parse().ok()? };
    (is_number && whole + rest <= 1000).then_some(whole + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_likes_best() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
                            application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Format::Text),
            (prometheus_3, Format::OpenMetrics),
            (prometheus_2, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text;version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Format::OpenMetrics),
            ("text/plain,application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.499,text/plain;q=0.5", Format::Text),
            ("application/openmetrics-text;q=2,text/plain;q=0.1", Format::Text),
            ("application/openmetrics-text;q=-1", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("image/png", Format::Text),
            (";;q,,=;", Format::Text),
        ] {
            assert_eq!(negotiated(accept), format, "{accept}");
        }
    }
}

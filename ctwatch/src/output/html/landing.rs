//! What a browser gets that was led to the exporter: where its pages are, and how it is.

use maud::{DOCTYPE, html};

use crate::output::openmetrics::ConntrackState;

pub struct Landing<'a> {
    pub conntrack: ConntrackState,
    pub telemetry_path: &'a str,
    /// How many tables are watched, and saturated.
    pub tables: Option<(usize, usize)>,
}

pub fn landing(landing: &Landing<'_>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "ctwatch" } }
            body {
                h1 { "ctwatch " (env!("CARGO_PKG_VERSION")) }
                p {
                    "nf_conntrack: " (landing.conntrack.name())
                    @if let Some((tables, saturated)) = landing.tables {
                        "; " (tables) " namespaces, " (saturated) " of them saturated"
                    }
                }
                ul {
                    li { a href=(landing.telemetry_path) { "Metrics" } }
                    li { a href="/-/healthy" { "Health" } }
                    li { a href="/api/v1/snapshot" { "The last tick, as JSON" } }
                    li { a href="/api/v1/top" { "Its top lists, as JSON" } }
                }
            }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_landing_page_is_escaped() {
        let tables = Some((3, 1));
        let path = "/\"><script>";
        let page =
            landing(&Landing { conntrack: ConntrackState::Loaded, telemetry_path: path, tables });
        assert!(page.contains("3 namespaces, 1 of them") && !page.contains("<script"), "{page}");
    }
}

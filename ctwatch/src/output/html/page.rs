//! The whole page.

use maud::{DOCTYPE, PreEscaped, html};

use super::{
    census, csp, events, exact, findings, headline, input::Input, key_figures, plane::Plot,
    reckoning::Reckoning, timeline, who, words::Clock,
};

const STYLE: &str = include_str!("style.css");
/// Without it all is there to read: it shows what is below the pointer, and a part of the time larger.
const SCRIPT: &str = include_str!("hover.js");

pub fn page(input: &Input<'_>) -> String {
    let story = input.story;
    let clock = Clock::new(input.zone, story.start, story.time(story.length));
    let clock = &clock;
    let reckoning = input.report.map(|report| Reckoning { story, report, clock });
    let frame = Plot { story, clock, reckoning };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(csp::policy(STYLE, SCRIPT));
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (headline::title(story)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (patterns())
                (headline::section(input, clock))
                main {
                    (key_figures::section(story, clock))
                    (timeline::section(&frame))
                    (who::section(input, clock))
                    (census::section(input, clock))
                    (events::section(story, clock))
                    (findings::section(reckoning))
                    (exact::section(input))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// What the pictures are hatched with.
fn patterns() -> maud::Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" {
            defs {
                pattern #hatch width="7" height="7" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" { line x1="0" y1="0" x2="0" y2="7" {} }
            }
        }
    }
}

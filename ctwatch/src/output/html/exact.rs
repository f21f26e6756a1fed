//! How far to trust each figure of the page.

use maud::{Markup, html};

use super::{
    input::Input,
    key_figures::sampling,
    words::{many, strange, thousands},
};
use crate::model::{margin::CONFIDENCE, story::WholeStory};

pub(super) fn section(input: &Input<'_>) -> Markup {
    let story = input.story;
    html! {
        section #exact {
            h2 { "How exact every figure is" }
            dl {
                dt { "exactly 1,783" } dd { "Each event was counted, and nothing else." }
                dt { "between 3 and 1,783, at most 1,783" }
                dd { "The truth is within: not everything can be told apart on this kernel." }
                dt { "at least 3" } dd { "Three are certain; ctwatch could not see all of them." }
                dt { "about 5,000" }
                dd {
                    "More came than could be told apart; some were counted for several, chosen at random. The \
                     truth is within the range in " (format!("{:.1}", CONFIDENCE * 100.0)) "% of cases."
                }
                dt { "not known" } dd { "It is counted, but what could be read says nothing. That is not zero." }
                dt { "not measured" } dd { "Nothing counts it here. That is not zero." }
            }
            ul { @for line in lines(story) { li { (line) } } }
            @if let Some(report) = input.report.filter(|report| !report.figures.is_empty()) {
                h3 { "What each figure promises on this kernel" }
                table {
                    tbody {
                        @for figure in &report.figures {
                            tr { th scope="row" { (figure.name) } td { (strange(figure.exactness)) } }
                        }
                    }
                }
            }
            @if !input.header.mechanisms.is_empty() {
                h3 { "By which mechanism" }
                table {
                    tbody {
                        @for measured in &input.header.mechanisms {
                            tr {
                                th scope="row" { (strange(&measured.signal)) }
                                td { (strange(measured.mechanism.as_deref().unwrap_or("not measured"))) }
                            }
                        }
                    }
                }
            }
            @if !input.header.notes.is_empty() {
                h3 { "Not measured, or not seen" }
                ul { @for note in &input.header.notes { li { (strange(note)) } } }
            }
        }
    }
}

fn lines(story: &WholeStory) -> Vec<String> {
    let mut lines = vec![sampling(story)];
    lines.push(
        "Bars of dropped packets add up to the total: a bar shows what became certain in its time. After \
         a gap, an outlined bar is the mean of the gap: when in it the packets were dropped is not known."
            .to_owned(),
    );
    lines.push(
        "Full means that the table held as many entries as it may, or that conntrack dropped packets or \
         evicted entries for want of room since the snapshot before."
            .to_owned(),
    );
    lines.push(
        "A census is taken now and then. Between two of them, how many entries were pinned, closing or \
         reclaimable was not measured."
            .to_owned(),
    );
    if story.lost > 0 {
        let events = many(story.lost, "event was", "events were");
        lines.push(format!("{events} not seen by the probes (lost)."));
    }
    if story.unplaced_of_others > 0 {
        lines.push(format!(
            "{} events in namespaces of unprivileged users were not told apart: there were too many.",
            thousands(story.unplaced_of_others)
        ));
    }
    lines
}

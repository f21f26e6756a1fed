//! Panes that are lines: what the doctor finds, single packets.

use crate::{
    model::names::protocol,
    tui::{
        canvas::Canvas,
        look::Tone,
        pointing::ClickTarget,
        rows,
        scene::{Band, Scene},
    },
};

/// A heading, and the lines around the chosen one.
pub(super) fn draw(
    canvas: &mut Canvas<'_>,
    band: Band,
    heading: &str,
    lines: &[(&str, Tone)],
    chosen: Option<usize>,
) {
    let Band { y, rows: room } = band;
    if room < 2 {
        return;
    }
    canvas.rule(y, heading, Tone::Heading);
    let most = usize::from(room - 1);
    let first = rows::window(chosen.unwrap_or(0), lines.len(), most);
    let columns = canvas.columns();
    for (y, (at, (text, tone))) in (y + 1..).zip(lines.iter().enumerate().skip(first).take(most)) {
        canvas.text(1, y, columns - 1, text, *tone);
        canvas.target((0, y, columns), ClickTarget::Line(at));
        if Some(at) == chosen {
            canvas.choose(y);
        }
    }
}

pub(super) fn doctor(canvas: &mut Canvas<'_>, scene: &Scene<'_>, band: Band) {
    let rows: Vec<(&str, Tone)> =
        scene.advice.iter().map(|row| (row.text.as_str(), row.tone)).collect();
    if rows.is_empty() {
        draw(canvas, band, "doctor", &[(scene.no_advice, Tone::Plain)], None);
        return;
    }
    let chosen = scene.state.doctor_row.min(rows.len() - 1);
    let of = match scene.state.narrowed.first() {
        Some(step) => format!(" of {} and of the host", step.to.name()),
        None => String::new(),
    };
    let heading = format!("doctor{of}: y copies the commands of the fix");
    draw(canvas, band, &heading, &rows, Some(chosen));
}

pub(super) fn trace(canvas: &mut Canvas<'_>, scene: &Scene<'_>, band: Band) {
    let lines: Vec<(&str, Tone)> =
        scene.traced.iter().map(|line| (line.as_str(), Tone::Plain)).collect();
    let heading = match scene.state.state() {
        None => "trace: single drops, the newest first".to_owned(),
        Some(((of, _), _)) => format!(
            "trace: single drops of {}, the newest first; they are in no state",
            protocol(of)
        ),
    };
    if lines.is_empty() {
        draw(canvas, band, &heading, &[(scene.no_trace, Tone::Plain)], None);
        return;
    }
    let chosen = scene.state.trace_row.min(lines.len() - 1);
    draw(canvas, band, &heading, &lines, Some(chosen));
}

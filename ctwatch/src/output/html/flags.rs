//! Marks on the pictures.

use maud::{Markup, html};

use super::plane::{Plot, percent};
use crate::model::story::{MarkKind, PlacedMark};

/// Above a picture: for flags.
pub(super) const FLAGS: f64 = 26.0;
/// Of the width: closer flags stand in rows, as many as there are.
const CLOSE: f64 = 0.03;
const ROWS: usize = 2;
/// Of the width: what a flag's words take.
const WORDS: f64 = 0.16;

/// A mark on the picture.
struct Flag<'a> {
    number: usize,
    part: f64,
    placed: &'a PlacedMark,
    /// `None`: there is no room for its number.
    row: Option<usize>,
    has_words: bool,
}

fn placed_flags<'a>(frame: &Plot<'a>) -> Vec<Flag<'a>> {
    let marks = &frame.story.marks;
    let mut rows = [f64::NEG_INFINITY; ROWS];
    let flag = |(at, placed): (usize, &'a PlacedMark)| {
        let part = frame.part(placed.at);
        let row = rows.iter().position(|last| part - last >= CLOSE);
        if let Some(last) = row.and_then(|row| rows.get_mut(row)) {
            *last = part;
        }
        let next = marks.get(at + 1).map_or(f64::INFINITY, |next| frame.part(next.at));
        let has_words = row == Some(0) && next - part > WORDS && part < 1.0 - WORDS;
        Flag { number: at + 1, part, placed, row, has_words }
    };
    marks.iter().enumerate().map(flag).collect()
}

/// Marks as lines through all of the picture, each with its number, and with words where there is room.
pub(super) fn flags(frame: &Plot<'_>, high: f64) -> Markup {
    html! {
        @for Flag { number, part, placed, row, has_words } in placed_flags(frame) {
            @let x = percent(part);
            @let data = format!("{part:.5}");
            @let kind = placed.mark.kind;
            line.mark.(class(kind)) data-x=(data) x1=(x) x2=(x) y1=(FLAGS - 4.0) y2=(FLAGS + high) {}
            @if let Some(row) = row {
                @let y = 9.0 + 13.0 * row as f64;
                circle.flag.(class(kind)) data-x=(data) cx=(x) cy=(y) r="7.5" {
                    title { (called(kind)) " " (frame.clock.time(placed.mark.time)) }
                }
                text.number data-x=(data) x=(x) y=(y + 3.5) text-anchor="middle" { (number) }
                @if has_words {
                    text.words data-x=(data) x=(x) dx="12" y=(y + 3.5) { (called(kind)) }
                }
            }
        }
    }
}

pub(super) fn class(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Began | MarkKind::Ended => "incident",
        MarkKind::Rules | MarkKind::Modules => "changed",
        MarkKind::Gap | MarkKind::Life | MarkKind::Clock => "recording",
    }
}

pub(super) fn called(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Modules => "modules loaded",
        MarkKind::Rules => "rules changed",
        MarkKind::Gap => "not recorded",
        MarkKind::Began => "incident began",
        MarkKind::Ended => "incident ended",
        MarkKind::Life => "counts begin anew",
        MarkKind::Clock => "clock set",
    }
}

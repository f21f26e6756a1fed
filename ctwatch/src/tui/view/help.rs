//! The keys of a pane.

use crate::tui::{
    canvas::Canvas,
    keys::{Binding, bindings},
    look::Tone,
    state::Pane,
};

pub(super) fn draw(canvas: &mut Canvas<'_>, pane: Pane, from: usize) {
    let (columns, rows) = (canvas.columns(), canvas.rows().saturating_sub(3));
    canvas.rule(1, &format!("keys in the pane {}", pane.name()), Tone::Heading);
    let all: Vec<&Binding> = bindings(pane).collect();
    let beside: u16 = if columns >= 78 { 2 } else { 1 };
    let width = columns / beside;
    let each = all.len().div_ceil(beside.into());
    let from = from.min(each.saturating_sub(rows.into()));
    for (at, binding) in all.iter().enumerate() {
        let Some(row) = (at % each).checked_sub(from).and_then(|row| u16::try_from(row).ok())
        else {
            continue;
        };
        let Ok(column) = u16::try_from(at / each) else { continue };
        if row >= rows {
            continue;
        }
        let names: Vec<String> = binding.keys.iter().map(|key| key.name()).collect();
        let x = column * width;
        let wide = if width < 40 { 8 } else { 14 };
        canvas.text(x, row + 2, wide - 1, &names.join(" "), Tone::Heading);
        canvas.text(x + wide, row + 2, width.saturating_sub(wide + 1), binding.says, Tone::Plain);
    }
}

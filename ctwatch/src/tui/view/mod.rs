//! One screen, from values.

mod bars;
mod census;
mod detail;
mod foot;
mod help;
mod lines;
mod lists;
mod namespaces;
mod title;

use super::{
    canvas::Canvas,
    grid::Grid,
    look::{Palette, Tone},
    pointing::ClickArea,
    rows,
    scene::{Band, Scene},
    state::Pane,
};
use crate::model::Snapshot;

/// Below this nothing can be said.
const LEAST: (u16, u16) = (20, 4);

pub fn draw(scene: &Scene<'_>, look: Palette, columns: u16, rows: u16) -> Grid {
    drawn(scene, look, columns, rows).0
}

/// And what lies where on it.
pub fn drawn(scene: &Scene<'_>, look: Palette, columns: u16, rows: u16) -> (Grid, Vec<ClickArea>) {
    let mut grid = Grid::new(columns, rows);
    let mut canvas = Canvas::new(&mut grid, look);
    if columns < LEAST.0 || rows < LEAST.1 {
        canvas.text(0, 0, columns, "too small", Tone::Plain);
        return (grid, Vec::new());
    }
    title::draw(&mut canvas, scene);
    let snapshot = scene.state.shown(scene.history);
    match (scene.state.help, snapshot) {
        (Some(from), _) => help::draw(&mut canvas, scene.state.pane, from),
        (None, None) => {
            canvas.text(0, 2, columns, scene.waiting, Tone::Plain);
        }
        (None, Some(snapshot)) => body(&mut canvas, scene, snapshot),
    }
    foot::draw(&mut canvas, scene);
    let areas = canvas.areas;
    (grid, areas)
}

fn body(canvas: &mut Canvas<'_>, scene: &Scene<'_>, snapshot: &Snapshot) {
    let mut y = 1 + title::alarms(canvas, scene, snapshot, 1);
    let end = canvas.rows() - foot::rows(scene);
    let tables = rows::tables(snapshot, scene.state);
    let room = end.saturating_sub(y);
    // Of the namespaces as many as leave room for what is said of one of them.
    let most = match scene.state.pane {
        Pane::Namespaces => (room * 2 / 5).max(2).saturating_sub(1).max(1),
        _ => 1,
    };
    y += namespaces::draw(canvas, scene, snapshot, &tables, y, most.min(room.saturating_sub(1)));
    let Some(table) = rows::selected(snapshot, scene.state) else { return };
    let place = Band { y, rows: end.saturating_sub(y) };
    match scene.state.pane {
        Pane::Talkers => lists::pane(canvas, scene, snapshot, table, place),
        Pane::Census => census::draw(canvas, scene, snapshot, table, place),
        Pane::Trace => lines::trace(canvas, scene, place),
        Pane::Doctor => lines::doctor(canvas, scene, place),
        Pane::Namespaces => detail::draw(canvas, scene, snapshot, table, place),
    }
}

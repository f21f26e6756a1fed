//! What lies where on the screen, for a mouse.

use ctwatch_abi::{NetnsId, top::Key};

use super::state::{Pane, TalkerSort};

/// What a click is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickTarget {
    Pane(Pane),
    Netns(NetnsId),
    Talker(Key),
    State(u8, u8),
    /// Of a pane that is lines.
    Line(usize),
    TableColumn(usize),
    TalkerColumn(TalkerSort),
    StateColumn(usize),
}

/// Where it is: one row of the screen, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickArea {
    pub x: u16,
    pub y: u16,
    pub width: u16,
    pub target: ClickTarget,
}

/// What lies there; the last that was drawn is on top.
pub fn target(areas: &[ClickArea], x: u16, y: u16) -> Option<ClickTarget> {
    let is_at = |area: &&ClickArea| area.y == y && (area.x..area.x + area.width).contains(&x);
    areas.iter().rev().find(is_at).map(|area| area.target)
}

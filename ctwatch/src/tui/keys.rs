//! Which key does what in which pane: one table, which the help screen and docs/top.md render and a test walks.

use super::state::Pane;

/// A key, as it was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Press {
    Char(char),
    Ctrl(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    WheelUp,
    WheelDown,
    /// With the mouse, at this column and row.
    Click(u16, u16),
}

impl Press {
    pub fn name(self) -> String {
        match self {
            Self::Char(' ') => "Space".to_owned(),
            Self::Char(char) => char.to_string(),
            Self::Ctrl(char) => format!("Ctrl-{}", char.to_ascii_uppercase()),
            Self::Enter => "Enter".to_owned(),
            Self::Escape => "Esc".to_owned(),
            Self::Tab => "Tab".to_owned(),
            Self::BackTab => "S-Tab".to_owned(),
            Self::Backspace => "Bksp".to_owned(),
            Self::Up => "Up".to_owned(),
            Self::Down => "Down".to_owned(),
            Self::Left => "Left".to_owned(),
            Self::Right => "Right".to_owned(),
            Self::Home => "Home".to_owned(),
            Self::End => "End".to_owned(),
            Self::PageUp => "PgUp".to_owned(),
            Self::PageDown => "PgDn".to_owned(),
            Self::WheelUp | Self::WheelDown => "wheel".to_owned(),
            Self::Click(..) => "click".to_owned(),
        }
    }
}

/// With a list of all of them, so that a test finds one that no key is bound to.
macro_rules! actions {
    ($($action:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($action),* }

        impl Action {
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$action),*];
        }
    };
}

actions![
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    NextPane,
    PreviousPane,
    Narrow,
    Widen,
    Filter,
    SortLeft,
    SortRight,
    Stream,
    Group,
    Freeze,
    Back,
    Forward,
    BackFar,
    ForwardFar,
    NextDrop,
    PreviousDrop,
    Now,
    Copy,
    Save,
    Report,
    Help,
    Redraw,
    Suspend,
    Quit,
];

pub struct Binding {
    pub keys: &'static [Press],
    pub action: Action,
    /// Elsewhere these keys do nothing, or what another row says.
    pub panes: &'static [Pane],
    /// What the help screen says of it.
    pub says: &'static str,
}

/// In each pane.
const fn binding(keys: &'static [Press], action: Action, says: &'static str) -> Binding {
    within(&Pane::ALL, keys, action, says)
}

const fn within(
    panes: &'static [Pane],
    keys: &'static [Press],
    action: Action,
    says: &'static str,
) -> Binding {
    Binding { keys, action, panes, says }
}

use Pane::{Census, Doctor, Namespaces, Talkers, Trace};
use Press::{Char, Ctrl};

/// The panes whose rows have columns.
const COLUMNED: &[Pane] = &[Namespaces, Talkers, Census];

pub const TABLE: &[Binding] = &[
    binding(&[Press::Up, Char('k'), Press::WheelUp], Action::Up, "one row up"),
    binding(&[Press::Down, Char('j'), Press::WheelDown], Action::Down, "one row down"),
    binding(&[Press::PageUp, Ctrl('b')], Action::PageUp, "ten rows up"),
    binding(&[Press::PageDown, Ctrl('f')], Action::PageDown, "ten rows down"),
    binding(&[Press::Home], Action::First, "first row"),
    binding(&[Press::End], Action::Last, "last row"),
    binding(&[Press::Tab], Action::NextPane, "next pane"),
    binding(&[Press::BackTab], Action::PreviousPane, "previous pane"),
    within(
        &[Namespaces, Trace, Doctor],
        &[Press::Enter],
        Action::Narrow,
        "narrow to the namespace",
    ),
    within(&[Talkers], &[Press::Enter], Action::Narrow, "narrow to the talker"),
    within(&[Census], &[Press::Enter], Action::Narrow, "narrow to the state"),
    binding(&[Press::Escape], Action::Widen, "back: one step wider"),
    binding(&[Char('/')], Action::Filter, "filter rows by text"),
    within(COLUMNED, &[Char('<')], Action::SortLeft, "sort by the column before"),
    within(COLUMNED, &[Char('>')], Action::SortRight, "sort by the next column"),
    within(&[Namespaces, Talkers], &[Char('d')], Action::Stream, "dropped/inserted/holding"),
    within(COLUMNED, &[Char('g')], Action::Group, "group by the next key"),
    binding(&[Char(' ')], Action::Freeze, "freeze, or play"),
    binding(&[Char('['), Press::Left, Char('h')], Action::Back, "one reading back"),
    binding(&[Char(']'), Press::Right, Char('l')], Action::Forward, "one reading forward"),
    binding(&[Char('{')], Action::BackFar, "ten readings back"),
    binding(&[Char('}')], Action::ForwardFar, "ten readings forward"),
    binding(&[Char('n')], Action::NextDrop, "to the next drops"),
    binding(&[Char('N')], Action::PreviousDrop, "to the drops before"),
    binding(&[Char('0')], Action::Now, "to the newest reading"),
    within(&[Namespaces, Talkers, Census], &[Char('y')], Action::Copy, "copy the row's name"),
    within(&[Trace], &[Char('y')], Action::Copy, "copy the row"),
    within(&[Doctor], &[Char('y')], Action::Copy, "copy the fix and its undo"),
    binding(&[Char('s')], Action::Save, "save the screen as text"),
    binding(&[Char('r')], Action::Report, "write an HTML report"),
    binding(&[Char('?')], Action::Help, "this help"),
    binding(&[Ctrl('l')], Action::Redraw, "draw all anew"),
    binding(&[Ctrl('z')], Action::Suspend, "suspend; fg comes back"),
    binding(&[Char('q'), Ctrl('c')], Action::Quit, "quit"),
];

/// What there is in a pane.
pub fn bindings(pane: Pane) -> impl Iterator<Item = &'static Binding> {
    TABLE.iter().filter(move |binding| binding.panes.contains(&pane))
}

pub fn action(press: Press, pane: Pane) -> Option<Action> {
    bindings(pane).find(|binding| binding.keys.contains(&press)).map(|binding| binding.action)
}

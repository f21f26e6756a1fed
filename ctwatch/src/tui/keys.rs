//! Which key does what: one table, which the help screen renders and a test walks.

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
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
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
}

pub struct Binding {
    pub keys: &'static [Press],
    pub action: Action,
    /// What the help screen says of it.
    pub says: &'static str,
}

const fn binding(keys: &'static [Press], action: Action, says: &'static str) -> Binding {
    Binding { keys, action, says }
}

use Press::{Char, Ctrl};

pub const TABLE: &[Binding] = &[
    binding(&[Press::Up, Char('k')], Action::Up, "one row up"),
    binding(&[Press::Down, Char('j')], Action::Down, "one row down"),
    binding(&[Press::PageUp, Ctrl('b')], Action::PageUp, "ten rows up"),
    binding(&[Press::PageDown, Ctrl('f')], Action::PageDown, "ten rows down"),
    binding(&[Press::Home], Action::First, "first row"),
    binding(&[Press::End], Action::Last, "last row"),
    binding(&[Press::Tab], Action::NextPane, "next pane"),
    binding(&[Press::BackTab], Action::PreviousPane, "previous pane"),
    binding(&[Press::Enter], Action::Narrow, "narrow to the row"),
    binding(&[Press::Escape], Action::Widen, "back: one step wider"),
    binding(&[Char('/')], Action::Filter, "filter rows by text"),
    binding(&[Char('<')], Action::SortLeft, "sort by the column before"),
    binding(&[Char('>')], Action::SortRight, "sort by the next column"),
    binding(&[Char('d')], Action::Stream, "dropped/inserted/holding"),
    binding(&[Char('g')], Action::Group, "group by the next key"),
    binding(&[Char(' ')], Action::Freeze, "freeze; counting goes on"),
    binding(&[Char('['), Press::Left, Char('h')], Action::Back, "one reading back"),
    binding(&[Char(']'), Press::Right, Char('l')], Action::Forward, "one reading forward"),
    binding(&[Char('{')], Action::BackFar, "ten readings back"),
    binding(&[Char('}')], Action::ForwardFar, "ten readings forward"),
    binding(&[Char('n')], Action::NextDrop, "to the next drops"),
    binding(&[Char('N')], Action::PreviousDrop, "to the drops before"),
    binding(&[Char('0')], Action::Now, "to the newest reading"),
    binding(&[Char('y')], Action::Copy, "copy the fix, or the row"),
    binding(&[Char('s')], Action::Save, "save the screen as text"),
    binding(&[Char('r')], Action::Report, "write an HTML report"),
    binding(&[Char('?')], Action::Help, "this help"),
    binding(&[Ctrl('l')], Action::Redraw, "draw all anew"),
    binding(&[Ctrl('z')], Action::Suspend, "suspend; fg comes back"),
    binding(&[Char('q'), Ctrl('c')], Action::Quit, "quit"),
];

pub fn action(press: Press) -> Option<Action> {
    TABLE.iter().find(|binding| binding.keys.contains(&press)).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_key_does_one_thing() {
        let mut keys = HashSet::new();
        let mut actions = HashSet::new();
        for binding in TABLE {
            assert!(!binding.keys.is_empty() && actions.insert(binding.action), "{}", binding.says);
            for key in binding.keys {
                assert!(keys.insert(*key), "{} is bound twice", key.name());
                assert_eq!(action(*key), Some(binding.action));
            }
            assert!(binding.says.len() <= 25, "{}", binding.says);
        }
    }

    #[test]
    fn keys_are_those_that_users_know() {
        for (key, wanted) in [
            (Char('q'), Action::Quit),
            (Char('?'), Action::Help),
            (Char('/'), Action::Filter),
            (Char('<'), Action::SortLeft),
            (Char('>'), Action::SortRight),
            (Char(' '), Action::Freeze),
            (Press::Tab, Action::NextPane),
            (Char('j'), Action::Down),
            (Char('k'), Action::Up),
        ] {
            assert_eq!(action(key), Some(wanted), "{}", key.name());
        }
    }
}

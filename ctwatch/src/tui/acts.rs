//! What each key does to what is looked at.

use ctwatch_abi::top::Key;

use super::{
    columns::COLUMNS,
    history::History,
    keys::{Action, Press, action},
    pointing::{ClickArea, ClickTarget, target},
    rows::{self, TalkerRows},
    state::{NarrowStep, Narrowing, Pane, TalkerList, TalkerSort, TopState},
    states::{self, STATE_COLUMNS, StateRow},
};
use crate::output::{services::Services, text::words::name};

/// What a key asks of those who draw the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Nothing,
    Quit,
    Suspend,
    Redraw,
    Copy,
    Save,
    Report,
    /// Of a recording: go on, or stop.
    Play,
}

/// What a key is pressed over.
pub struct Under<'a> {
    pub history: &'a History,
    /// What lies where on the screen.
    pub areas: &'a [ClickArea],
    pub services: &'a Services,
    /// Rows of panes that are not made from snapshots.
    pub trace_rows: usize,
    pub doctor_rows: usize,
}

/// A page of rows.
const PAGE: isize = 10;

impl TopState {
    pub fn press(&mut self, press: Press, under: &Under<'_>) -> Demand {
        if self.is_typing {
            self.type_filter(press);
            return Demand::Nothing;
        }
        if let Press::Click(x, y) = press {
            self.help = None;
            if let Some(target) = target(under.areas, x, y) {
                self.click(target);
            }
            return Demand::Nothing;
        }
        let Some(action) = action(press, self.pane) else { return Demand::Nothing };
        if self.help.is_some() && !matches!(action, Action::Quit | Action::Suspend | Action::Redraw)
        {
            self.in_help(action);
            return Demand::Nothing;
        }
        self.act(action, under)
    }

    fn click(&mut self, target: ClickTarget) {
        match target {
            ClickTarget::Pane(pane) => self.pane = pane,
            ClickTarget::Netns(id) => self.chosen = Some(id),
            ClickTarget::Talker(key) => self.talker = Some(key),
            ClickTarget::State(protocol, state) => self.census = Some((protocol, state)),
            ClickTarget::Line(row) if self.pane == Pane::Trace => self.trace_row = row,
            ClickTarget::Line(row) => self.doctor_row = row,
            ClickTarget::TableColumn(at) => self.table_sort = Some(at),
            ClickTarget::TalkerColumn(sort) => self.talker_sort = sort,
            ClickTarget::StateColumn(at) => self.census_sort = Some(at),
        }
    }

    fn type_filter(&mut self, press: Press) {
        const LONGEST: usize = 100;
        match press {
            Press::Enter => self.is_typing = false,
            Press::Escape | Press::Ctrl('c') => {
                self.is_typing = false;
                self.filter_mut().clear();
            }
            Press::Backspace => _ = self.filter_mut().pop(),
            Press::Char(char) if self.filter().len() < LONGEST => self.filter_mut().push(char),
            _ => {}
        }
        self.choose_first();
    }

    /// Of this pane.
    fn choose_first(&mut self) {
        match self.pane {
            Pane::Namespaces => self.chosen = None,
            Pane::Talkers => self.talker = None,
            Pane::Census => self.census = None,
            Pane::Trace => self.trace_row = 0,
            Pane::Doctor => self.doctor_row = 0,
        }
    }

    fn in_help(&mut self, action: Action) {
        let Some(at) = self.help else { return };
        self.help = match action {
            Action::Down => Some(at + 1),
            Action::Up => Some(at.saturating_sub(1)),
            Action::PageDown => Some(at + PAGE.unsigned_abs()),
            Action::PageUp => Some(at.saturating_sub(PAGE.unsigned_abs())),
            _ => None,
        };
    }

    fn act(&mut self, action: Action, under: &Under<'_>) -> Demand {
        let history = under.history;
        match action {
            Action::Up => self.step(-1, under),
            Action::Down => self.step(1, under),
            Action::PageUp => self.step(-PAGE, under),
            Action::PageDown => self.step(PAGE, under),
            Action::First => self.step(isize::MIN / 2, under),
            Action::Last => self.step(isize::MAX / 2, under),
            Action::NextPane => self.pane = self.pane.step(1),
            Action::PreviousPane => self.pane = self.pane.step(-1),
            Action::Narrow => self.narrow(under),
            Action::Widen => self.widen(),
            Action::Filter => self.is_typing = true,
            Action::SortLeft => self.sort(-1),
            Action::SortRight => self.sort(1),
            Action::Stream => {
                self.listed = after(&TalkerList::ALL, self.listed);
                self.talker = None;
            }
            Action::Group => {
                self.by = after(&self.groupings, self.by);
                self.talker = None;
            }
            Action::Freeze if self.is_recorded => {
                self.is_playing = !self.is_playing;
                return Demand::Play;
            }
            Action::Freeze => {
                self.cursor = match self.cursor {
                    Some(_) => None,
                    None => history.newest().map(|kept| kept.number),
                };
            }
            Action::Back => self.scrub(history, -1),
            Action::Forward => self.scrub(history, 1),
            Action::BackFar => self.scrub(history, -PAGE),
            Action::ForwardFar => self.scrub(history, PAGE),
            Action::NextDrop | Action::PreviousDrop => {
                let from = self.cursor.or(history.newest().map(|kept| kept.number)).unwrap_or(0);
                if let Some(to) = history.drops_begin(from, action == Action::NextDrop) {
                    self.cursor = Some(to);
                    self.is_playing = false;
                }
            }
            Action::Now => {
                self.cursor = None;
                self.is_playing = false;
            }
            Action::Help => self.help = Some(0),
            Action::Copy => return Demand::Copy,
            Action::Save => return Demand::Save,
            Action::Report => return Demand::Report,
            Action::Redraw => return Demand::Redraw,
            Action::Suspend => return Demand::Suspend,
            Action::Quit => return Demand::Quit,
        }
        Demand::Nothing
    }

    fn scrub(&mut self, history: &History, by: isize) {
        let from = self.cursor.or(history.newest().map(|kept| kept.number));
        self.is_playing = false;
        if let Some(from) = from {
            self.cursor = history.step(from, by);
        }
    }

    /// A recording goes on by one reading. Returns whether it is over.
    pub fn play(&mut self, history: &History) -> bool {
        let newest = history.newest().map(|kept| kept.number);
        let from = self.cursor.or(newest);
        self.cursor = from.and_then(|from| history.step(from, 1));
        let is_over = self.cursor == newest;
        self.is_playing &= !is_over;
        is_over
    }

    fn sort(&mut self, by: isize) {
        // First the order of its own, without a column, then each column in turn.
        let next = |sorted: Option<usize>, columns: usize| {
            let at = sorted.map_or(0, |at| at as isize + 1);
            (at + by).rem_euclid(columns as isize + 1).unsigned_abs().checked_sub(1)
        };
        match self.pane {
            Pane::Namespaces => self.table_sort = next(self.table_sort, COLUMNS.len()),
            Pane::Census => self.census_sort = next(self.census_sort, STATE_COLUMNS.len()),
            Pane::Talkers => {
                let all = &TalkerSort::ALL;
                let at = all.iter().position(|sort| *sort == self.talker_sort).unwrap_or(0);
                let next = (at as isize + by).rem_euclid(all.len() as isize).unsigned_abs();
                self.talker_sort = all.get(next).copied().unwrap_or_default();
            }
            Pane::Trace | Pane::Doctor => {}
        }
    }

    fn step(&mut self, by: isize, under: &Under<'_>) {
        let moved = |at: usize, all: usize| at.saturating_add_signed(by).min(all.saturating_sub(1));
        match self.pane {
            Pane::Namespaces => {
                let Some(snapshot) = self.shown(under.history) else { return };
                let tables = rows::tables(snapshot, self);
                let at = moved(rows::place(&tables, self.chosen), tables.len());
                self.chosen = tables.get(at).map(|table| table.id);
            }
            Pane::Talkers => {
                let keys = self.talker_keys(under);
                let at = keys.iter().position(|key| Some(*key) == self.talker).unwrap_or(0);
                self.talker = keys.get(moved(at, keys.len())).copied();
            }
            Pane::Census => {
                let rows = self.states(under.history);
                let at = moved(states::chosen(&rows, self), rows.len());
                self.census = rows.get(at).map(StateRow::id);
            }
            Pane::Trace => self.trace_row = moved(self.trace_row, under.trace_rows),
            Pane::Doctor => self.doctor_row = moved(self.doctor_row, under.doctor_rows),
        }
    }

    fn states(&self, history: &History) -> Vec<StateRow> {
        let rows = self
            .shown(history)
            .and_then(|snapshot| states::states(snapshot, rows::selected(snapshot, self)?, self));
        rows.unwrap_or_default()
    }

    fn talker_keys(&self, under: &Under<'_>) -> Vec<Key> {
        let Some(snapshot) = self.shown(under.history) else { return Vec::new() };
        let Some(table) = rows::selected(snapshot, self) else { return Vec::new() };
        match rows::talkers(
            snapshot,
            table,
            (self.listed, rows::grouping(self)),
            self,
            under.services,
        ) {
            TalkerRows::List { rows, .. } => rows.iter().map(|row| row.entry.key).collect(),
            TalkerRows::None(_) => Vec::new(),
        }
    }

    /// What the chosen row is about.
    pub fn row_name(&self, history: &History, services: &Services) -> Option<String> {
        let snapshot = self.shown(history)?;
        let table = rows::selected(snapshot, self)?;
        match self.pane {
            Pane::Talkers => {}
            Pane::Census => {
                let rows = self.states(history);
                return rows.get(states::chosen(&rows, self)).map(|row| row.name.clone());
            }
            Pane::Namespaces => return Some(name(table)),
            Pane::Trace | Pane::Doctor => return None,
        }
        match rows::talkers(snapshot, table, (self.listed, rows::grouping(self)), self, services) {
            TalkerRows::None(_) => None,
            TalkerRows::List { rows, .. } => {
                let chosen = rows.iter().find(|row| Some(row.entry.key) == self.talker);
                chosen.or(rows.first()).map(|row| row.name.clone())
            }
        }
    }

    fn narrow(&mut self, under: &Under<'_>) {
        let Some(snapshot) = self.shown(under.history) else { return };
        let Some(table) = rows::selected(snapshot, self) else { return };
        let to_netns = Narrowing::Netns { id: table.id, name: name(table) };
        let mut steps = Vec::new();
        if self.netns().is_none() {
            steps.push(to_netns);
        }
        if self.pane == Pane::Talkers
            && let TalkerRows::List { by, rows, .. } = rows::talkers(
                snapshot,
                table,
                (self.listed, rows::grouping(self)),
                self,
                under.services,
            )
        {
            let chosen = rows.iter().find(|row| Some(row.entry.key) == self.talker);
            if let Some(row) = chosen.or(rows.first()) {
                let step = Narrowing::Key { by, key: row.entry.key, name: row.name.clone() };
                if !self.narrowed.iter().any(|known| known.to == step) {
                    steps.push(step);
                }
            }
        }
        if self.pane == Pane::Census && self.state().is_none() {
            let rows = self.states(under.history);
            let step = |row: &StateRow| Narrowing::State {
                protocol: row.protocol,
                state: row.state,
                name: row.name.clone(),
            };
            steps.extend(rows.get(states::chosen(&rows, self)).map(step));
        }
        if steps.is_empty() {
            return;
        }
        let from = self.pane;
        self.narrowed.extend(steps.into_iter().map(|to| NarrowStep { to, from }));
        self.clear_filters();
        self.talker = None;
        if self.pane == Pane::Namespaces {
            self.pane = Pane::Talkers;
        }
    }

    fn widen(&mut self) {
        if !self.filter().is_empty() {
            self.filter_mut().clear();
        } else if let Some(step) = self.narrowed.pop() {
            self.pane = step.from;
            self.talker = None;
            match step.to {
                Narrowing::Netns { id, .. } => self.chosen = Some(id),
                Narrowing::State { protocol, state, .. } => self.census = Some((protocol, state)),
                Narrowing::Key { .. } => {}
            }
        } else if self.pane != Pane::Namespaces {
            self.pane = Pane::Namespaces;
        } else {
            self.chosen = None;
            if !self.is_recorded {
                self.cursor = None;
            }
        }
    }
}

/// The one after it, or the first.
fn after<T: Copy + PartialEq>(all: &[T], one: T) -> T {
    let at = all.iter().position(|other| *other == one).map_or(0, |at| at + 1);
    all.get(at).or(all.first()).copied().unwrap_or(one)
}

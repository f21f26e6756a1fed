//! Each key in each pane: what it changes, and that it changes nothing where it is not bound.

use std::{collections::HashSet, sync::LazyLock};

use expect_test::expect_file;

use super::{
    acts::Demand,
    advice::AdviceRow,
    keys::{Action, Press, TABLE, action, bindings},
    look::Tone,
    screens::Bench,
    state::{Narrowing, Pane, TalkerList, TalkerSort, TopState},
};
use crate::{model::Snapshot, output::fixtures::several};

/// Calm, an incident, calm, and so on, for five readings each.
static PAST: LazyLock<Vec<Snapshot>> = LazyLock::new(|| {
    let both = several();
    let at = |second: i64| Snapshot {
        time: jiff::Timestamp::from_second(second).unwrap(),
        ..both[usize::from((second / 5) % 2 == 1)].clone()
    };
    (0..40).map(at).collect()
});

/// Many rows in each pane, and a past on both sides of what is shown.
fn bench(pane: Pane) -> Bench {
    let snapshots = PAST.clone();
    let mut bench = Bench::new(snapshots);
    bench.traced = (0..50).map(|number| format!("drop {number}")).collect();
    let row = |finding| AdviceRow {
        text: format!("finding {finding}"),
        tone: Tone::Plain,
        finding,
        fix: None,
    };
    bench.advice = (0..50).map(row).collect();
    bench.state.pane = pane;
    bench.state.cursor = Some(17);
    bench
}

/// The chosen row of a pane.
fn row(bench: &Bench) -> String {
    let state = &bench.state;
    match state.pane {
        Pane::Namespaces => format!("{:?}", state.chosen),
        Pane::Talkers => format!("{:?}", state.talker),
        Pane::Census => format!("{:?}", state.census),
        Pane::Trace => state.trace_row.to_string(),
        Pane::Doctor => state.doctor_row.to_string(),
    }
}

/// What an action needs so that there is something for it to do.
fn prepare(action: Action, bench: &mut Bench) {
    match action {
        // Not at the first row, and then not at the last.
        Action::Up | Action::PageUp | Action::First => _ = bench.press(Press::End),
        Action::Down | Action::PageDown | Action::Last => _ = bench.press(Press::Home),
        Action::Widen => _ = bench.press(Press::Enter),
        _ => {}
    }
}

fn is_of_netns(state: &TopState) -> bool {
    matches!(state.narrowed[..], [ref step] if matches!(step.to, Narrowing::Netns { .. }))
}

/// Whether it did what it says. There is no arm for all others: whoever adds an action says what it does.
fn did(
    action: Action,
    pane: Pane,
    before: &(String, usize),
    bench: &Bench,
    demand: Demand,
) -> bool {
    let (row_before, narrowed_before) = before;
    let (state, row) = (&bench.state, row(bench));
    match action {
        Action::Up
        | Action::Down
        | Action::PageUp
        | Action::PageDown
        | Action::First
        | Action::Last => row != *row_before,
        Action::NextPane => state.pane == pane.step(1),
        Action::PreviousPane => state.pane == pane.step(-1),
        Action::Narrow => match pane {
            Pane::Namespaces => is_of_netns(state) && state.pane == Pane::Talkers,
            Pane::Trace | Pane::Doctor => is_of_netns(state),
            Pane::Talkers => matches!(
                state.narrowed[..],
                [_, ref step] if matches!(step.to, Narrowing::Key { .. })
            ),
            Pane::Census => state.state().is_some() && state.netns().is_some(),
        },
        Action::Widen => state.narrowed.len() + 1 == *narrowed_before,
        Action::Filter => state.is_typing,
        Action::SortLeft | Action::SortRight => match pane {
            Pane::Namespaces => state.table_sort.is_some(),
            Pane::Talkers => state.talker_sort != TalkerSort::Now,
            Pane::Census => state.census_sort.is_some(),
            Pane::Trace | Pane::Doctor => false,
        },
        Action::Stream => state.listed == TalkerList::Inserted,
        Action::Group => Some(&state.by) == state.groupings.get(1),
        Action::Freeze => state.cursor.is_none(),
        Action::Back => state.cursor == Some(16),
        Action::Forward => state.cursor == Some(18),
        Action::BackFar => state.cursor == Some(7),
        Action::ForwardFar => state.cursor == Some(27),
        Action::NextDrop => state.cursor == Some(25),
        Action::PreviousDrop => state.cursor == Some(15),
        Action::Now => state.cursor.is_none(),
        Action::Help => state.help.is_some(),
        Action::Copy => demand == Demand::Copy,
        Action::Save => demand == Demand::Save,
        Action::Report => demand == Demand::Report,
        Action::Redraw => demand == Demand::Redraw,
        Action::Suspend => demand == Demand::Suspend,
        Action::Quit => demand == Demand::Quit,
    }
}

#[test]
fn each_key_of_each_pane_does_what_it_says() {
    for pane in Pane::ALL {
        for binding in bindings(pane) {
            for key in binding.keys {
                let mut bench = bench(pane);
                prepare(binding.action, &mut bench);
                // Enter leads from one pane to another; what is tested is the key here.
                bench.state.pane = pane;
                let before = (row(&bench), bench.state.narrowed.len());
                let demand = bench.press(*key);
                assert!(
                    did(binding.action, pane, &before, &bench, demand),
                    "{} in {}: {} did not happen: {before:?}, {:?}",
                    key.name(),
                    pane.name(),
                    binding.says,
                    bench.state
                );
            }
        }
    }
}

#[test]
fn keys_without_a_row_do_nothing() {
    let all = TABLE.iter().flat_map(|binding| binding.keys);
    let others = ('!'..='~').map(Press::Char).chain(('a'..='z').map(Press::Ctrl));
    let keys: HashSet<Press> = all.copied().chain(others).chain([Press::Backspace]).collect();
    let mut unbound = 0;
    for pane in Pane::ALL {
        let mut bench = bench(pane);
        for key in keys.iter().filter(|key| action(**key, pane).is_none()) {
            let before = format!("{:?}", bench.state);
            assert_eq!(bench.press(*key), Demand::Nothing, "{} in {}", key.name(), pane.name());
            assert_eq!(format!("{:?}", bench.state), before, "{} in {}", key.name(), pane.name());
            unbound += 1;
        }
    }
    assert!(unbound > 100, "{unbound}");
}

#[test]
fn each_action_has_one_row_in_each_pane() {
    for action in Action::ALL {
        assert!(TABLE.iter().any(|binding| binding.action == *action), "{action:?} has no key");
    }
    for pane in Pane::ALL {
        let (mut keys, mut actions) = (HashSet::new(), HashSet::new());
        for binding in bindings(pane) {
            assert!(!binding.keys.is_empty() && actions.insert(binding.action), "{}", binding.says);
            let twice = binding.keys.iter().find(|key| !keys.insert(**key));
            assert_eq!(twice, None, "{}: bound twice", pane.name());
            assert!(binding.says.len() <= 25, "{}", binding.says);
        }
    }
    assert!(TABLE.iter().all(|binding| !binding.panes.is_empty()));
}

#[test]
fn a_recording_is_played_and_stopped() {
    let mut bench = bench(Pane::Namespaces);
    bench.state.is_recorded = true;
    assert_eq!(bench.press(Press::Char(' ')), Demand::Play);
    assert!(bench.state.is_playing);
    bench.press(Press::Char(' '));
    assert!(!bench.state.is_playing);
}

#[test]
fn keys_are_those_that_users_know() {
    for (key, wanted) in [
        (Press::Char('q'), Action::Quit),
        (Press::Char('?'), Action::Help),
        (Press::Char('/'), Action::Filter),
        (Press::Char('<'), Action::SortLeft),
        (Press::Char('>'), Action::SortRight),
        (Press::Char(' '), Action::Freeze),
        (Press::Tab, Action::NextPane),
        (Press::Char('j'), Action::Down),
        (Press::Char('k'), Action::Up),
    ] {
        assert_eq!(action(key, Pane::Namespaces), Some(wanted), "{}", key.name());
    }
}

/// The key table of docs/top.md. `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_manual_lists_each_key() {
    let text = include_str!("../../../docs/top.md");
    let head = "| key | does | in the panes |\n| --- | --- | --- |\n";
    let begin = text.find(head).expect("docs/top.md has no table of keys");
    let end = text[begin..].find("\n\n").map(|at| begin + at + 1).unwrap();
    let rows = TABLE.iter().map(|binding| {
        let keys: Vec<String> =
            binding.keys.iter().map(|key| format!("`{}`", key.name())).collect();
        let panes: Vec<&str> = match binding.panes.len() {
            all if all == Pane::ALL.len() => vec!["all"],
            _ => binding.panes.iter().map(|pane| pane.name()).collect(),
        };
        format!("| {} | {} | {} |\n", keys.join(" "), binding.says, panes.join(", "))
    });
    let wanted = format!("{head}{}", rows.collect::<String>());
    let page = format!("{}{wanted}{}", &text[..begin], &text[end..]);
    expect_file!["../../../docs/top.md"].assert_eq(&page);
}

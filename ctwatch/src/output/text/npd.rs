//! One line for Kubernetes' node-problem-detector, which cuts off what is longer than 80 bytes.
//! <https://github.com/kubernetes/node-problem-detector/blob/master/docs/custom_plugin_monitor.md>

use super::check::{findings, names, plain, summary};
use crate::model::verdict::{State, Verdict};

/// Its default, and what an event shows.
const LONGEST: usize = 80;
/// What a name may take of that, so that figures have room.
const LONGEST_NAME: usize = 24;

/// What its exit code says: 0 no problem, 1 a problem, 2 unknown.
pub fn code(state: State) -> u8 {
    match state {
        State::Ok => 0,
        State::Warning | State::Critical => 1,
        State::Unknown => 2,
    }
}

/// `CRITICAL: rt 100.0% full (1000 of 1000); and 2 more`
pub fn line(verdict: &Verdict) -> String {
    let names = names(&verdict.tables, LONGEST_NAME);
    let found = findings(verdict, &names, 1);
    let text = if found.is_empty() { summary(verdict, &names) } else { found.join("; ") };
    said(verdict.state, &text)
}

/// Without a verdict.
pub fn said(state: State, text: &str) -> String {
    let mut line = format!("{}: {}", state.name(), plain(text));
    if line.len() > LONGEST {
        const CUT: &str = "...";
        let end = (0..=LONGEST - CUT.len()).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or_default());
        line.push_str(CUT);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::{
        judge,
        situations::{self, Situation, rt, table},
    };

    fn shown(situation: &Situation) -> (u8, String) {
        let thresholds = situations::columns()[5];
        let verdict = judge(&situation.snapshot(), situation.uncounted, None, &thresholds);
        (code(verdict.state), line(&verdict))
    }

    #[test]
    fn lines_as_an_event_shows_them() {
        for (situation, expected) in [
            (Situation::still(rt(5, 0)), (0, "OK: rt 0.5% full (5 of 1000)")),
            (Situation::still(rt(800, 0)), (1, "WARNING: rt 80.0% full (800 of 1000)")),
            (
                Situation::of(vec![rt(1000, 0)], vec![rt(1000, 90)]),
                (1, "CRITICAL: rt 100.0% full (1000 of 1000); and 1 more"),
            ),
            (
                Situation::of(vec![rt(5, 0)], vec![]),
                (2, "UNKNOWN: no such network namespace is there"),
            ),
        ] {
            let (code, line) = shown(&situation);
            assert_eq!((code, line.as_str()), expected);
        }
    }

    #[test]
    fn the_code_is_0_only_where_all_is_well() {
        for (name, situation, expected) in situations::rows() {
            for (thresholds, state) in
                situations::columns().iter().zip(situations::states(expected))
            {
                let verdict = judge(&situation.snapshot(), situation.uncounted, None, thresholds);
                let wanted = match state {
                    State::Ok => 0,
                    State::Unknown => 2,
                    _ => 1,
                };
                assert_eq!(code(verdict.state), wanted, "{name}");
                let line = line(&verdict);
                assert!(line.len() <= LONGEST, "{name}: {line}");
            }
        }
    }

    #[test]
    fn a_long_name_leaves_room_for_the_figure() {
        for name in ["x".repeat(255), "\u{1b}|".repeat(60), "\u{f6}".repeat(200)] {
            let (code, line) = shown(&Situation::still(table(1, &name, 950, 0)));
            assert!(line.len() <= LONGEST && line.contains("95.0% full"), "{code} {line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn what_is_cut_ends_with_dots() {
        let said = said(State::Unknown, &"\u{f6} no answer ".repeat(9));
        assert!(said.len() <= LONGEST && said.ends_with("..."), "{said}");
    }
}

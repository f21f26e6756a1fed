//! What suites came to, in lines that do not hide what was skipped.

use std::{fmt, time::Duration};

/// What a suite came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Failed once, and held when they were run again.
    pub(crate) unsteady: u64,
}

/// What became of a suite.
pub(crate) struct Ran {
    pub(crate) suite: &'static str,
    pub(crate) counts: Counts,
    /// What its skipped tests lack.
    pub(crate) needs: &'static str,
    pub(crate) succeeded: bool,
    pub(crate) took: Duration,
}

/// A line for each suite and one for all, and whether all is well. `complete` is for where every
/// test can run: then every one must have.
pub(crate) fn summarise(rows: &[Ran], complete: bool) -> (String, bool) {
    let (mut all, mut lines) = (Counts::default(), Vec::new());
    for &Ran { suite, mut counts, needs, succeeded, took } in rows {
        // One that fails without a failing test was killed, or stopped half-way.
        let stopped = !succeeded && counts.failed == 0;
        counts.failed += u64::from(stopped);
        let why = match needs {
            _ if stopped => " (IT DID NOT FINISH)".to_owned(),
            needs if counts.skipped > 0 && !needs.is_empty() => format!(" (needs {needs})"),
            _ => String::new(),
        };
        lines.push(format!("{suite:<6} {counts}{why}, {:.1} s", took.as_secs_f64()));
        all.add(counts);
    }
    let incomplete = complete && all.skipped > 0;
    if incomplete {
        lines.push("root in CI lacks nothing: no test may be skipped".to_owned());
    }
    let nothing = all == Counts::default();
    if nothing {
        lines.push("no test has such a name".to_owned());
    }
    lines.push(all.to_string());
    (lines.join("\n"), all.failed == 0 && !incomplete && !nothing)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, unsteady } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        match unsteady {
            0 => Ok(()),
            _ => write!(f, ", {unsteady} UNSTEADY (failed once, then held)"),
        }
    }
}

impl Counts {
    pub(crate) fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
        self.unsteady += more.unsteady;
    }
}

/// `test result: ok. 49 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s`
pub(crate) fn result(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let number = number.parse().unwrap_or(0);
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            "unsteady" => counts.unsteady = number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_the_test_harness_are_counted() {
        let line =
            "test result: FAILED. 49 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out";
        let counts = Counts { passed: 49, failed: 2, skipped: 1, unsteady: 0 };
        assert_eq!(result(line), Some(counts));
        let line = format!("{line}; 4 unsteady; finished in 0s");
        assert_eq!(result(&line), Some(Counts { unsteady: 4, ..counts }));
        assert_eq!(result("running 3 tests"), None);
    }

    fn ran(passed: u64, failed: u64, skipped: u64, succeeded: bool) -> Ran {
        let counts = Counts { passed, failed, skipped, unsteady: 0 };
        Ran { suite: "netns", counts, needs: "root", succeeded, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let (summary, good) = summarise(&[ran(3, 0, 2, true), ran(4, 0, 0, true)], false);
        assert!(good);
        assert_eq!(
            summary,
            "netns  3 passed, 0 failed, 2 skipped (needs root), 1.5 s\n\
             netns  4 passed, 0 failed, 0 skipped, 1.5 s\n\
             7 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn what_is_unsteady_is_said_in_each_line_and_is_no_success_of_its_own() {
        let mut one = ran(3, 0, 0, true);
        one.counts.unsteady = 1;
        let (summary, good) = summarise(&[one], true);
        assert!(good && summary.matches("3 passed, 0 failed, 0 skipped, 1 UNSTEADY").count() == 2);
    }

    #[test]
    fn skipped_tests_are_a_failure_where_all_can_run() {
        let (summary, good) = summarise(&[ran(3, 0, 2, true)], true);
        assert!(!good && summary.ends_with("\n3 passed, 0 failed, 2 skipped"), "{summary}");
    }

    #[test]
    fn a_suite_that_was_killed_has_failed() {
        let (summary, good) = summarise(&[ran(3, 0, 0, false)], false);
        assert!(!good && summary.ends_with("\n3 passed, 1 failed, 0 skipped"), "{summary}");
        assert!(summary.contains("DID NOT FINISH"));
    }

    #[test]
    fn no_test_at_all_is_no_success() {
        assert!(!summarise(&[ran(0, 0, 0, true)], false).1);
    }
}

//! What a change can touch, by the paths of its files: for trying it out before all is run. What is
//! not known to touch little touches everything.

use std::process::Command;

use anyhow::Result;

use super::{Slice, Trials, ledger};
use ctwatch_provision::process::{output, root};

/// What the tests of a file can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touches {
    Nothing,
    /// Trials by this mechanism.
    Mechanism(&'static str),
    /// Trials with this in their names.
    Named(&'static str),
    Everything,
}

/// The first that fits. Paths are compared from their start.
const PATHS: &[(&str, &[Touches])] = {
    use Touches::{Everything, Mechanism, Named, Nothing};
    &[
        ("README.md", &[Nothing]),
        ("CONTRIBUTING.md", &[Nothing]),
        ("SECURITY.md", &[Nothing]),
        ("CHANGELOG.md", &[Nothing]),
        ("ARCHITECTURE.md", &[Nothing]),
        ("LICENSE", &[Nothing]),
        ("docs/", &[Nothing]),
        ("deny.toml", &[Nothing]),
        ("clippy.toml", &[Nothing]),
        ("rustfmt.toml", &[Nothing]),
        ("xtask/", &[Nothing]),
        ("tests/cli/", &[Nothing]),
        ("tests/rooms/", &[Nothing]),
        ("tests/fuzz/", &[Nothing]),
        ("ctwatch-ebpf/src/programs/fexit.rs", &[Mechanism("fexit")]),
        ("ctwatch-ebpf/src/programs/kprobe.rs", &[Mechanism("kprobe")]),
        ("ctwatch-ebpf/src/programs/tracepoint.rs", &[Mechanism("tracepoint")]),
        ("ctwatch-ebpf/src/programs/census.rs", &[Named("census"), Named("doctor")]),
        (
            "ctwatch-ebpf/src/hooks/kfree_skb.rs",
            &[Mechanism("tracepoint"), Mechanism("fexit"), Mechanism("kprobe")],
        ),
        ("ctwatch-ebpf/src/hooks/kmem.rs", &[Mechanism("tracepoint")]),
        ("ctwatch-ebpf/src/hooks/census.rs", &[Named("census"), Named("doctor")]),
        ("ctwatch-ebpf/src/hooks/loading.rs", &[Named("load")]),
        ("ctwatch/src/probe/census.rs", &[Named("census"), Named("doctor")]),
        ("ctwatch/src/probe/fexit.rs", &[Mechanism("fexit")]),
        ("ctwatch/src/probe/find_table.rs", &[Named("census"), Named("table_is")]),
        ("ctwatch/src/probe/modules.rs", &[Named("load")]),
        (
            "ctwatch/src/diagnosis/",
            &[Named("doctor"), Named("advice"), Named("story"), Named("listed")],
        ),
        ("ctwatch/src/output/text/doctor.rs", &[Named("doctor"), Named("listed")]),
        ("ctwatch/src/output/text/census.rs", &[Named("census")]),
        ("ctwatch/src/output/text/check.rs", &[Named("check")]),
        ("ctwatch/src/output/text/trace.rs", &[Named("trace")]),
        ("ctwatch/src/commands/doctor.rs", &[Named("doctor"), Named("listed")]),
        ("ctwatch/src/commands/census.rs", &[Named("census")]),
        ("ctwatch/src/commands/check.rs", &[Named("check")]),
        ("ctwatch/src/commands/trace", &[Named("trace")]),
        ("ctwatch/src/model/verdict.rs", &[Named("check")]),
        ("ctwatch/src/model/census.rs", &[Named("census"), Named("doctor")]),
        ("", &[Everything]),
    ]
};

/// The cells that what differs from `base` can touch.
pub(crate) fn of_changes(trials: &Trials, base: &str) -> Result<Slice> {
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(root()).args(args));
    let mut paths = git(&["diff", "--name-only", base, "--"])?;
    paths.push_str(&git(&["ls-files", "--others", "--exclude-standard"])?);
    Ok(touched_by(trials, paths.lines()))
}

fn touched_by<'a>(trials: &Trials, paths: impl Iterator<Item = &'a str>) -> Slice {
    let mut touched: Vec<Touches> = Vec::new();
    for path in paths.filter(|path| !ledger::is_written_by_runs(path)) {
        let row = PATHS.iter().find(|(start, _)| path.starts_with(start));
        touched.extend(row.map_or(&[Touches::Everything][..], |(_, touches)| touches));
    }
    Slice::of(trials, |_, trial| {
        touched.iter().any(|touches| match touches {
            Touches::Nothing => false,
            Touches::Everything => true,
            Touches::Mechanism(name) => trial.mechanism().is_some_and(|(by, _)| by == *name),
            Touches::Named(part) => trial.name.contains(part),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Trial;

    fn touched(paths: &[&str]) -> Vec<String> {
        let names =
            ["fexit::udp", "kprobe::udp", "a_census_of_all", "the_doctor_and_nat", "narrow"];
        let trial = |name: &str| Trial { name: name.to_owned(), of_kernel: true };
        let trials = Trials::from([("6.1".to_owned(), names.map(trial).to_vec())]);
        let slice = touched_by(&trials, paths.iter().copied());
        slice.0.into_iter().map(|cell| cell.trial).collect()
    }

    #[test]
    fn paths_and_what_they_touch() {
        assert!(touched(&["README.md", "docs/matrix.md", "xtask/src/main.rs"]).is_empty());
        assert!(touched(&["tests/matrix.tsv"]).is_empty());
        assert_eq!(touched(&["ctwatch-ebpf/src/programs/fexit.rs"]), ["fexit::udp"]);
        assert_eq!(
            touched(&["ctwatch/src/probe/census.rs", "README.md"]),
            ["a_census_of_all", "the_doctor_and_nat"]
        );
        assert_eq!(touched(&["ctwatch-ebpf/src/tally.rs"]).len(), 5, "what is not known: all");
        assert_eq!(touched(&["Cargo.lock"]).len(), 5);
    }

    #[test]
    fn each_path_of_the_table_is_there() {
        for (path, _) in PATHS.iter().filter(|(path, _)| *path != "LICENSE") {
            assert!(root().join(path).exists(), "{path} was moved or removed");
        }
    }
}

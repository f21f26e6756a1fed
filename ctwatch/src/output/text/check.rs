//! One line for monitoring: what is wrong, then the numbers.
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use super::words;
use crate::{
    model::verdict::{Judged, JudgedTable, State, Verdict, What},
    output::escape::escaped,
};

/// One line is to be read on a telephone.
const MOST_TOLD: usize = 5;
/// Nagios reads 8 KiB of a plugin's output and cuts off the rest, where it may.
const MOST_TABLES: usize = 20;
/// What a name may take of that.
const LONGEST_NAME: usize = 64;

/// `CTWATCH CRITICAL - rt 100.0% full (1000 of 1000) | 'rt count'=1000;799;949;0;1000 …`
///
/// The notes are about what was not looked at.
pub fn line(verdict: &Verdict, notes: &[String]) -> String {
    let names = names(&verdict.tables, LONGEST_NAME);
    let mut parts = findings(verdict, &names, MOST_TOLD);
    if parts.is_empty() {
        parts.push(summary(verdict, &names));
    }
    let left_out = verdict.tables.len().saturating_sub(MOST_TABLES);
    if left_out > 0 {
        parts.push(format!("numbers of {left_out} more namespaces left out"));
    }
    match verdict.others {
        0 => {}
        1 => parts.push("1 namespace of an unprivileged user not judged".to_owned()),
        more => parts.push(format!("{more} namespaces of unprivileged users not judged")),
    }
    parts.extend_from_slice(notes);
    let line = said(verdict.state, &parts.join("; "));
    let data: Vec<String> = verdict
        .tables
        .iter()
        .zip(&names)
        .take(MOST_TABLES)
        .flat_map(|(table, name)| table.figures.iter().map(|figure| perfdata(table, name, figure)))
        .collect();
    if data.is_empty() { line } else { format!("{line} | {}", data.join(" ")) }
}

/// Where namespaces whose owner is unknown count as the host's: how many, and why the first is unknown.
pub fn unowned(verdict: &Verdict) -> Option<String> {
    let (count, why) = verdict.unowned.as_ref()?;
    Some(match count {
        1 => format!("1 namespace of unknown owner judged as the host's: {why}"),
        more => format!("{more} namespaces of unknown owner judged as the host's: {why}"),
    })
}

/// Without numbers.
pub fn said(state: State, text: &str) -> String {
    format!("CTWATCH {} - {}", state.name(), plain(text))
}

/// Nothing that ends the line, and nothing that begins the numbers.
pub(super) fn plain(text: &str) -> String {
    escaped(text).replace('|', "\\u{7c}")
}

/// What each table is called: by the inode number too where the name alone would not tell.
pub(super) fn names(tables: &[JudgedTable], longest: usize) -> Vec<String> {
    let called: Vec<String> =
        tables.iter().map(|table| words::called(table.name.as_deref(), table.inode)).collect();
    let unique = |name: &String| called.iter().filter(|other| *other == name).count() == 1;
    let full = |(table, name): (&JudgedTable, &String)| match beginning(name, longest) {
        begin if begin == name && unique(name) => name.clone(),
        begin => format!("{begin}[{}]", table.inode),
    };
    tables.iter().zip(&called).map(full).collect()
}

/// As much of a name as has room.
fn beginning(name: &str, longest: usize) -> &str {
    let mut length = 0;
    let end = name.char_indices().find(|(at, c)| {
        length += label(&name[*at..at + c.len_utf8()]).len();
        length > longest
    });
    end.map_or(name, |(at, _)| &name[..at])
}

/// What is wrong or not known, the worst first.
pub(super) fn findings(verdict: &Verdict, names: &[String], most: usize) -> Vec<String> {
    let mut found = Vec::new();
    for state in [State::Critical, State::Warning, State::Unknown] {
        for (table, name) in verdict.tables.iter().zip(names) {
            let figures = table.figures.iter().filter(|figure| figure.state == state);
            found.extend(figures.map(|figure| finding(verdict, table, name, figure)));
        }
    }
    let more = found.len().saturating_sub(most);
    found.truncate(most);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

fn finding(verdict: &Verdict, table: &JudgedTable, name: &str, figure: &Judged) -> String {
    let (Some(value), None) = (figure.value, &figure.why) else {
        let what = match figure.what {
            What::Fill => "fill",
            What::Pinned => "pinned",
            What::Drops => "drops",
            What::Full => "time to full",
            What::Dropped => "dropped since the last call",
        };
        let why = figure.why.as_deref().unwrap_or("it could not be measured");
        return format!("{name} {what} unknown: {why}");
    };
    match figure.what {
        What::Fill => format!("{name} {}", share(value, table, "full")),
        What::Pinned => format!("{name} {}", share(value, table, "pinned")),
        What::Drops => {
            let dropped = table.dropped.unwrap_or_default();
            let packets = packets(dropped as f64);
            let (watched, per_s) = (verdict.watched_s, words::number(value));
            format!("{name} dropped {packets} in {watched:.1} s ({per_s}/s)")
        }
        What::Dropped => {
            let ago = verdict.since_s.map(|s| format!(", {} ago", words::time(s as f64)));
            let (packets, ago) = (packets(value), ago.unwrap_or_default());
            format!("{name} dropped {packets} since the last call{ago}")
        }
        What::Full if value == 0.0 => format!("{name} is full"),
        What::Full => format!("{name} full in {}", words::time(value)),
    }
}

fn packets(count: f64) -> String {
    if count == 1.0 { "1 packet".to_owned() } else { format!("{count} packets") }
}

/// `95.0% full (950 of 1000)`
fn share(entries: f64, table: &JudgedTable, word: &str) -> String {
    match table.limit.filter(|limit| *limit > 0) {
        Some(limit) => {
            format!("{:.1}% {word} ({entries} of {limit})", entries * 100.0 / f64::from(limit))
        }
        None => format!("{entries} entries, no limit"),
    }
}

/// All is well: how full the fullest is.
pub(super) fn summary(verdict: &Verdict, names: &[String]) -> String {
    let known = verdict.tables.iter().zip(names);
    let fullest = known
        .filter_map(|(table, name)| Some((table.entries?, table, name)))
        .max_by_key(|(entries, ..)| *entries);
    let unentered = match verdict.unentered {
        0 => String::new(),
        more => format!("; {more} more could not be entered"),
    };
    match (fullest, verdict.namespaces) {
        (_, 0) if verdict.unentered > 0 => {
            format!("none of {} namespaces could be entered", verdict.unentered)
        }
        (_, 0) => "no such network namespace is there".to_owned(),
        (Some((entries, table, name)), 1) => {
            format!("{name} {}", share(f64::from(entries), table, "full"))
        }
        (Some((entries, table, name)), all) => {
            let share = share(f64::from(entries), table, "full");
            format!("{name} {share}, the fullest of {all} namespaces{unentered}")
        }
        (None, all) if verdict.tables.is_empty() => {
            format!("nothing is tracked in {all} namespaces{unentered}")
        }
        (None, _) => "nothing is beyond its limits".to_owned(),
    }
}

/// `'label'=value[UOM];warn;crit;min;max`
fn perfdata(table: &JudgedTable, name: &str, figure: &Judged) -> String {
    let (what, unit) = match figure.what {
        What::Fill => ("count", ""),
        What::Pinned => ("pinned", ""),
        What::Drops => ("drops", ""),
        What::Full => ("full", "s"),
        What::Dropped => ("dropped", ""),
    };
    // What was not measured has no number, which is not the same as none.
    let value = figure.value.map_or_else(|| "U".to_owned(), |v| format!("{}{unit}", number(v)));
    let range = |last_good: Option<f64>| match (last_good, figure.what) {
        (None, _) => String::new(),
        (Some(least), What::Full) => format!("{}:", number(least)),
        (Some(most), _) => number(most),
    };
    let max = match (figure.what, table.limit) {
        (What::Fill | What::Pinned, Some(limit)) if limit > 0 => limit.to_string(),
        _ => String::new(),
    };
    let (warning, critical) = (range(figure.warning), range(figure.critical));
    format!("'{}'={value};{warning};{critical};0;{max}", label(&format!("{name} {what}")))
}

/// Some readers take a doubled quote for one, others none at all, and a label ends with an equals
/// sign: written out, they are safe with all of them.
fn label(text: &str) -> String {
    plain(text).replace('\'', "\\u{27}").replace('=', "\\u{3d}")
}

/// To a millionth: one packet in a day is still not none.
fn number(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use ctwatch_lab::plugin::{self, Output};

    use super::*;
    use crate::model::verdict::{
        judge,
        situations::{self, Situation, rt, table, unread},
    };

    fn parsed(line: &str) -> Output {
        plugin::parse("CTWATCH", &format!("{line}\n")).unwrap_or_else(|e| panic!("{line}: {e:#}"))
    }

    fn shown(situation: &Situation, column: usize) -> String {
        let thresholds = situations::columns()[column];
        line(&judge(&situation.snapshot(), situation.uncounted, None, &thresholds), &[])
    }

    #[test]
    fn lines_as_plugins_write_them() {
        const FILL: usize = 1;
        const PINNED: usize = 2;
        const DROPS: usize = 3;
        const FULL: usize = 4;
        const BOTH: usize = 5;
        for (situation, column, expected) in [
            (
                Situation::still(rt(950, 0)),
                BOTH,
                "CTWATCH CRITICAL - rt 95.0% full (950 of 1000) | \
                 'rt count'=950;799;949;0;1000 'rt drops'=0;0;1;0;",
            ),
            (
                Situation::still(rt(5, 0)),
                FILL,
                "CTWATCH OK - rt 0.5% full (5 of 1000) | \
                 'rt count'=5;799;949;0;1000 'rt drops'=0;;;0;",
            ),
            (
                Situation::of(vec![rt(5, 0)], vec![rt(5, 1)]),
                DROPS,
                "CTWATCH WARNING - rt dropped 1 packet in 2.0 s (0.5/s) | \
                 'rt count'=5;;;0;1000 'rt drops'=0.5;0;1;0;",
            ),
            (
                Situation::still(rt(600, 0)).pinned(500, None),
                PINNED,
                "CTWATCH WARNING - rt 50.0% pinned (500 of 1000) | \
                 'rt count'=600;;;0;1000 'rt drops'=0;;;0; 'rt pinned'=500;499;822;0;1000",
            ),
            (
                Situation::of(vec![rt(0, 0)], vec![rt(100, 0)]),
                FULL,
                "CTWATCH CRITICAL - rt full in 18s | \
                 'rt count'=100;;;0;1000 'rt drops'=0;;;0; 'rt full'=18s;600:;60:;0;",
            ),
            (
                Situation::still(rt(1000, 0)),
                FULL,
                "CTWATCH CRITICAL - rt is full | \
                 'rt count'=1000;;;0;1000 'rt drops'=0;;;0; 'rt full'=0s;600:;60:;0;",
            ),
            (
                Situation::still(rt(5, 0)).limit(Some(0)),
                FILL,
                "CTWATCH OK - rt 5 entries, no limit | 'rt count'=5;;;0; 'rt drops'=0;;;0;",
            ),
            (
                Situation::still(unread(1, "rt")),
                BOTH,
                "CTWATCH UNKNOWN - rt fill unknown: cannot enter it; rt drops unknown: cannot \
                 enter it | 'rt count'=U;799;949;0;1000 'rt drops'=U;0;1;0;",
            ),
            (
                Situation::of(vec![rt(5, 0)], vec![]),
                BOTH,
                "CTWATCH UNKNOWN - no such network namespace is there",
            ),
        ] {
            assert_eq!(shown(&situation, column), expected);
        }
    }

    /// A server that knows nothing but the numbers comes to the same conclusion.
    #[test]
    fn the_numbers_say_what_the_state_says() {
        for (name, situation, expected) in situations::rows() {
            for (column, state) in situations::states(expected).into_iter().enumerate() {
                let line = shown(&situation, column);
                let output = parsed(&line);
                assert_eq!(output.code(), state as i32, "{name}: {line}");
                assert!(!line.contains("NaN") && !line.contains("inf"), "{name}: {line}");
                let worst = output.metrics.iter().map(plugin::Metric::code);
                let worst = worst.filter(|code| *code != 3).max().unwrap_or(0);
                match state {
                    // One that is unlimited, or not filling, is beyond nothing.
                    State::Unknown => assert_eq!(worst, 0, "{name}: {line}"),
                    state => assert_eq!(worst, state as i32, "{name}: {line}"),
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_together_with_what_is_not_known() {
        let both = vec![unread(2, "un"), rt(800, 0)];
        let line = shown(&Situation::of(both.clone(), both), 1);
        assert!(
            line.starts_with(
                "CTWATCH WARNING - rt 80.0% full (800 of 1000); un fill unknown: cannot enter it | "
            ),
            "{line}"
        );
    }

    #[test]
    fn what_was_dropped_since_the_last_call_is_a_number_too() {
        use crate::model::{remembered::Since, verdict::tests::dropped_since};
        let said = |since| line(&dropped_since(since), &[]);
        let some = said(Since::Counted(7));
        assert_eq!(
            some,
            "CTWATCH WARNING - rt dropped 7 packets since the last call, 5m00s ago | \
             'rt count'=5;;;0;1000 'rt drops'=0;;;0; 'rt dropped'=7;0;100;0;"
        );
        assert_eq!(parsed(&some).code(), 1);
        let began = said(Since::Began);
        assert!(began.starts_with("CTWATCH OK - rt 0.5% full"), "{began}");
        assert!(began.ends_with("'rt dropped'=U;0;100;0;"), "{began}");
        let lost = said(Since::AtLeast(0, "the machine was started".to_owned()));
        assert!(
            lost.starts_with(
                "CTWATCH UNKNOWN - rt dropped since the last call unknown: the machine was started"
            ),
            "{lost}"
        );
    }

    #[test]
    fn an_unknown_owner_is_said_in_one_line() {
        use crate::record::sample::{Owner, TableSample};
        let owner = Owner::Unknown("no\n|way".to_owned());
        let unowned = |id| TableSample { owner: owner.clone(), ..table(id, "rt", 5, 0) };
        for (tables, begin) in
            [(vec![unowned(1)], "1 namespace "), (vec![unowned(1), unowned(2)], "2 namespaces ")]
        {
            let situation = Situation::of(tables.clone(), tables);
            let verdict = judge(&situation.snapshot(), None, None, &situations::columns()[1]);
            let notes: Vec<String> = super::unowned(&verdict).into_iter().collect();
            let output = parsed(&line(&verdict, &notes));
            let expected =
                format!("; {begin}of unknown owner judged as the host's: no\\n\\u{{7c}}way");
            assert!(output.text.ends_with(&expected), "{}", output.text);
            assert_eq!(output.code(), 0);
        }
        let known =
            judge(&Situation::still(rt(5, 0)).snapshot(), None, None, &situations::columns()[1]);
        assert_eq!(super::unowned(&known), None);
    }

    #[test]
    fn names_cannot_break_the_line() {
        let long = "x".repeat(255);
        let bars = "|".repeat(255);
        for name in [
            "r|t",
            "a'b",
            "''",
            "a=b",
            "a b;1;2",
            "\n\r\t",
            "\u{1b}[31m\u{9b}\u{202e}",
            "'x'=1 'y",
            " - | OK",
            "\\",
            "höst",
            &long,
            &bars,
        ] {
            let line = shown(&Situation::still(table(1, name, 950, 3)), 5);
            let output = parsed(&line);
            assert_eq!((output.code(), output.metrics.len()), (2, 2), "{line}");
            assert!(line.len() < 500, "{line}");
            assert!(output.metrics.iter().all(|metric| metric.code() != 3), "{line}");
        }
    }

    #[test]
    fn namespaces_of_one_name_are_told_apart() {
        let long = ["x".repeat(255), format!("{}y", "x".repeat(254))];
        let mut tables = vec![table(1, "rt", 1, 0), table(2, "rt", 2, 0), table(3, "other", 3, 0)];
        tables.extend([table(4, &long[0], 4, 0), table(5, &long[1], 5, 0)]);
        let output = parsed(&shown(&Situation::of(tables.clone(), tables), 1));
        for label in ["rt[1] count", "rt[2] count", "other count"] {
            output.metric(label).unwrap();
        }
        assert_eq!(output.metrics.len(), 10);
    }

    #[test]
    fn many_namespaces_are_one_line_that_is_read_to_its_end() {
        let name = |number| format!("{number}-{}", "|".repeat(50));
        let tables: Vec<_> = (0..300).map(|number| table(number, &name(number), 950, 0)).collect();
        let situation = Situation::of(tables.clone(), tables);
        let thresholds = situations::columns()[5];
        let verdict = judge(&situation.snapshot(), None, None, &thresholds);
        let line = line(&verdict, &["a note".to_owned()]);
        let output = parsed(&line);
        assert!(line.len() < 8192, "{}", line.len());
        assert!(
            output
                .text
                .ends_with("; and 295 more; numbers of 280 more namespaces left out; a note"),
            "{}",
            output.text
        );
    }

    #[test]
    fn what_was_looked_into_is_said_where_all_is_well() {
        let tables = vec![rt(0, 0), table(2, "two", 0, 0)];
        let idle = shown(&Situation::of(tables.clone(), tables), 5);
        assert_eq!(idle, "CTWATCH OK - nothing is tracked in 2 namespaces");
        let tables = vec![rt(10, 0), table(2, "two", 20, 0)];
        let line = shown(&Situation::of(tables.clone(), tables), 5);
        assert!(line.starts_with("CTWATCH OK - two 2.0% full (20 of 1000), the fullest of 2 "));
    }

    #[test]
    fn one_packet_in_a_day_is_not_none() {
        assert_eq!(number(1.0 / 86_400.0), "0.000012");
        assert_eq!((number(0.1 + 0.2), number(1e9)), ("0.3".to_owned(), "1000000000".to_owned()));
    }
}

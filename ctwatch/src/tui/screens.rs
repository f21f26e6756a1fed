//! Screens, each from values and in three sizes.

use std::{sync::Arc, time::Duration};

use ctwatch_abi::top::{By, Stream};
use expect_test::{ExpectFile, expect_file};

use super::{
    acts::{Demand, Under},
    advice::{self, AdviceRow},
    grid::Grid,
    history::{History, HistoryBounds},
    keys::{Press, TABLE, bindings},
    look::{Colours, Glyphs, Palette},
    pointing::ClickArea,
    scene::Scene,
    state::{Pane, TalkerSort, TopState},
    view,
};
use crate::{
    diagnosis::report::{Finding, Fix, Severity},
    model::{Snapshot, census::StateOf, figure::Exactness, planes::ControlPlane, top::TopList},
    output::{
        fixtures::{header, several, taken_in_state, top_entry},
        services::Services,
    },
};

const SIZES: [(u16, u16); 3] = [(40, 12), (80, 24), (200, 60)];
const LOOK: Palette = Palette { colours: Colours::Sixteen, glyphs: Glyphs::Braille };
const ASCII: Palette = Palette { colours: Colours::None, glyphs: Glyphs::Ascii };
const GROUPINGS: [By; 4] = [By::Source, By::Service, By::Interface, By::Process];

/// A screen and the keys that are pressed on it.
pub(super) struct Bench {
    pub(super) advice: Vec<AdviceRow>,
    pub(super) traced: Vec<String>,
    pub(super) state: TopState,
    pub(super) history: History,
    pub(super) services: Services,
    look: Palette,
    /// Of the screen at which a mouse points.
    areas: Vec<ClickArea>,
}

impl Bench {
    pub(super) fn new(snapshots: Vec<Snapshot>) -> Self {
        let mut history = History::new(HistoryBounds { readings: 600, bytes: 1 << 20 });
        snapshots.into_iter().for_each(|snapshot| history.push(Box::new(snapshot)));
        let services = Services::parse("domain 53/udp\nbgp 179/tcp\n");
        Self {
            advice: Vec::new(),
            traced: Vec::new(),
            state: TopState::new(GROUPINGS.to_vec(), false),
            history,
            services,
            look: LOOK,
            areas: Vec::new(),
        }
    }

    /// A calm reading, and one in which much happens.
    pub(super) fn incident() -> Self {
        let mut snapshots = several();
        snapshots.truncate(2);
        if let Some(table) = snapshots[1].tables.iter_mut().find(|table| table.id == 42) {
            let exactness = Exactness::LowerBound;
            let plane = |protocol, at_least, per_s| ControlPlane {
                protocol,
                at_least,
                per_s: Some(per_s),
                exactness,
            };
            table.control_plane = vec![plane("bgp", 400, 400.0), plane("bfd", 12, 0.0)];
        }
        Self::new(snapshots)
    }

    pub(super) fn press(&mut self, press: Press) -> Demand {
        let under = Under {
            history: &self.history,
            areas: &self.areas,
            services: &self.services,
            trace_rows: self.traced.len(),
            doctor_rows: self.advice.len(),
        };
        self.state.press(press, &under)
    }

    pub(super) fn type_all(&mut self, text: &str) {
        text.chars().for_each(|char| _ = self.press(Press::Char(char)));
    }

    pub(super) fn drawn(&self, columns: u16, rows: u16) -> Grid {
        self.seen(columns, rows).0
    }

    fn seen(&self, columns: u16, rows: u16) -> (Grid, Vec<ClickArea>) {
        let header = header();
        let scene = Scene {
            state: &self.state,
            history: &self.history,
            header: Some(&header),
            services: &self.services,
            zone: &jiff::tz::TimeZone::UTC,
            notice: None,
            waiting: "waiting for the first reading",
            advice: &self.advice,
            no_advice: "looking at rules and settings",
            traced: &self.traced,
            no_trace: "not tracing",
        };
        view::drawn(&scene, self.look, columns, rows)
    }

    /// In each size, one below the other.
    fn looks_like(&self, golden: ExpectFile) {
        let screens = SIZES.map(|(columns, rows)| {
            format!("{columns} x {rows}\n{}", self.drawn(columns, rows).text())
        });
        golden.assert_eq(&screens.join("\n"));
    }
}

#[test]
fn the_first_screen_tells_the_incident() {
    let bench = Bench::incident();
    bench.looks_like(expect_file!["../../../tests/golden/top/incident.txt"]);
    let said = bench.drawn(80, 24).text();
    for words in ["CONTROL PLANE", "rt", "FULL", "table_full", "10.128.0.35", "pinned"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_calm_box_is_calm() {
    let mut snapshots = several();
    snapshots.truncate(1);
    Bench::new(snapshots).looks_like(expect_file!["../../../tests/golden/top/calm.txt"]);
}

#[test]
fn a_poor_terminal_gets_ascii() {
    let mut bench = Bench::incident();
    bench.look = ASCII;
    bench.looks_like(expect_file!["../../../tests/golden/top/ascii.txt"]);
    for (columns, rows) in SIZES {
        assert!(bench.drawn(columns, rows).text().is_ascii());
    }
}

#[test]
fn nothing_is_there_before_the_first_reading() {
    Bench::new(Vec::new()).looks_like(expect_file!["../../../tests/golden/top/waiting.txt"]);
}

#[test]
fn the_help_screen_shows_every_key() {
    let mut bench = Bench::incident();
    bench.press(Press::Char('?'));
    bench.looks_like(expect_file!["../../../tests/golden/top/help.txt"]);
    bench.press(Press::Escape);
    for pane in Pane::ALL {
        bench.state.pane = pane;
        bench.press(Press::Char('?'));
        let said = bench.drawn(80, 24).text();
        // On a small terminal it scrolls.
        let mut seen = String::new();
        for _ in 0..40 {
            seen += &bench.drawn(40, 12).text();
            bench.press(Press::Down);
        }
        for binding in bindings(pane) {
            assert!(said.contains(binding.says), "{}: {said}", binding.says);
            assert!(seen.contains(&binding.says[..binding.says.len().min(20)]), "{}", binding.says);
        }
        bench.press(Press::Escape);
        assert_eq!(bench.state.help, None);
    }
}

#[test]
fn no_key_and_no_size_panics() {
    let mut bench = Bench::incident();
    for binding in TABLE.iter().chain(TABLE) {
        for key in binding.keys {
            bench.press(*key);
            for (columns, rows) in [(0, 0), (1, 1), (20, 4), (21, 5), (39, 7), (80, 24), (300, 100)]
            {
                bench.drawn(columns, rows);
            }
        }
    }
}

#[test]
fn enter_narrows_and_escape_goes_back() {
    let mut bench = Bench::incident();
    bench.press(Press::Enter);
    assert_eq!((bench.state.netns(), bench.state.pane), (Some(42), Pane::Talkers));
    bench.looks_like(expect_file!["../../../tests/golden/top/narrowed.txt"]);
    bench.press(Press::Down);
    bench.press(Press::Enter);
    let names: Vec<&str> = bench.state.narrowed.iter().map(|step| step.to.name()).collect();
    assert_eq!(names, ["rt", "2001:db8::1"]);
    assert!(bench.drawn(80, 24).text().contains("ctwatch > rt > 2001:db8::1"));
    bench.press(Press::Escape);
    bench.press(Press::Escape);
    assert_eq!((bench.state.netns(), bench.state.pane), (None, Pane::Namespaces));
    assert!(!bench.drawn(80, 24).text().contains("ctwatch >"));
}

/// The census of the incident again, and who holds the entries that wait for their end.
fn in_time_wait(bench: &mut Bench) {
    let of = StateOf { netns: 42, protocol: 6, state: 7 };
    let mut snapshot = several().remove(1);
    snapshot.census = Some((Arc::new(taken_in_state(Some(of))), Duration::from_secs(1)));
    bench.history.push(Box::new(snapshot));
}

#[test]
fn a_census_is_sorted_filtered_and_narrowed() {
    let mut bench = Bench::incident();
    bench.state.pane = Pane::Census;
    bench.looks_like(expect_file!["../../../tests/golden/top/census.txt"]);
    let first = |bench: &Bench| {
        let said = bench.drawn(200, 60).text();
        let at = said.lines().position(|line| line.starts_with(" state"));
        said.lines().nth(at.unwrap() + 1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(first(&bench).starts_with("udp 1500 75.0%"), "{}", first(&bench));
    // By the column before the first: the longest time left.
    bench.press(Press::Char('<'));
    assert!(first(&bench).starts_with("tcp ESTABLISHED 60 3.0%"), "{}", first(&bench));
    bench.press(Press::Char('/'));
    bench.type_all("WAIT");
    bench.press(Press::Enter);
    assert!(first(&bench).starts_with("tcp TIME_WAIT 440 22.0%"), "{}", first(&bench));
    bench.press(Press::Enter);
    let names: Vec<&str> = bench.state.narrowed.iter().map(|step| step.to.name()).collect();
    assert_eq!((names, bench.state.filter()), (vec!["rt", "tcp TIME_WAIT"], ""));
    let said = bench.drawn(80, 24).text();
    assert!(said.contains("the next census tells") && !said.contains("ESTABLISHED"), "{said}");
    in_time_wait(&mut bench);
    let said = bench.drawn(80, 24).text();
    let row = said.lines().find(|line| line.contains("10.128.0.36")).unwrap_or_default();
    assert!(row.contains("440") && row.contains("100%"), "{said}");
    bench.looks_like(expect_file!["../../../tests/golden/top/state.txt"]);
    bench.press(Press::Escape);
    assert_eq!((bench.state.state(), bench.state.census), (None, Some((6, 7))));
    assert_eq!(bench.state.netns(), Some(42));
}

#[test]
fn what_has_no_state_says_so() {
    let mut bench = Bench::incident();
    bench.state.pane = Pane::Census;
    bench.press(Press::Down);
    bench.press(Press::Enter);
    in_time_wait(&mut bench);
    for (pane, words) in [
        (Pane::Namespaces, "tcp TIME_WAIT: 440 entries, 22.0% (1 s ago); *: of all states"),
        (Pane::Namespaces, "dropped by source *"),
        (Pane::Talkers, "; of all states: they are in none"),
        (Pane::Trace, "single drops of tcp, the newest first; they are in no state"),
    ] {
        bench.state.pane = pane;
        let said = bench.drawn(80, 24).text();
        assert!(said.contains(words), "{pane:?}: {said}");
    }
    // Who holds them is known.
    bench.state.pane = Pane::Talkers;
    bench.press(Press::Char('d'));
    bench.press(Press::Char('d'));
    let said = bench.drawn(80, 24).text();
    assert!(said.contains("10.128.0.36") && !said.contains("10.128.0.35"), "{said}");
    bench.state.is_recorded = true;
    bench.history.push(Box::new(several().remove(1)));
    assert!(bench.drawn(80, 24).text().contains("not recorded by state"));
}

#[test]
fn blocks_are_drawn_where_they_were_asked_for() {
    let mut bench = Bench::incident();
    bench.look = Palette { glyphs: Glyphs::Blocks, ..LOOK };
    bench.looks_like(expect_file!["../../../tests/golden/top/blocks.txt"]);
}

/// Clicks on a word of the screen.
fn click(bench: &mut Bench, word: &str) {
    let (grid, areas) = bench.seen(80, 24);
    bench.areas = areas;
    let text = grid.text();
    let lines: Vec<&str> = text.lines().collect();
    let y = lines.iter().rposition(|line| line.contains(word)).unwrap();
    let x = lines[y].split(word).next().unwrap().chars().count();
    bench.press(Press::Click(u16::try_from(x).unwrap(), u16::try_from(y).unwrap()));
}

#[test]
fn a_click_selects_what_it_is_on() {
    let mut bench = Bench::incident();
    click(&mut bench, "nat-gateway");
    assert!(bench.drawn(80, 24).text().contains("nat-gateway-of-a-customer: 3000 of"));
    click(&mut bench, "insert/s");
    assert!(bench.drawn(80, 24).text().contains("vinsert/s"));
    bench.state = TopState::new(GROUPINGS.to_vec(), false);
    click(&mut bench, "talkers");
    assert_eq!(bench.state.pane, Pane::Talkers);
    click(&mut bench, "10.128.0.36");
    assert_eq!(bench.state.row_name(&bench.history, &bench.services).unwrap(), "10.128.0.36");
    click(&mut bench, "in all");
    assert_eq!(bench.state.talker_sort, TalkerSort::All);
    click(&mut bench, "census");
    click(&mut bench, "tcp ESTABLISHED");
    assert_eq!(bench.state.census, Some((6, 3)));
    bench.press(Press::WheelUp);
    assert_eq!(bench.state.census, Some((6, 7)));
    // Where nothing is, nothing happens.
    bench.press(Press::Click(300, 300));
    assert_eq!(bench.state.pane, Pane::Census);
    bench.press(Press::Char('?'));
    click(&mut bench, "one row up");
    assert_eq!(bench.state.help, None);
}

#[test]
fn a_filter_leaves_out_rows() {
    let mut bench = Bench::incident();
    bench.press(Press::Char('/'));
    bench.type_all("NAT-q");
    bench.press(Press::Backspace);
    assert!(bench.drawn(80, 24).text().contains("/NAT-_"));
    bench.press(Press::Enter);
    let said = bench.drawn(80, 24).text();
    assert!(said.contains("nat-gateway") && !said.contains("sealed"), "{said}");
    bench.press(Press::Escape);
    assert!(bench.drawn(80, 24).text().contains("sealed"));
}

#[test]
fn a_frozen_screen_stays_while_counting_goes_on() {
    let mut bench = Bench::incident();
    bench.press(Press::Char(' '));
    let frozen = bench.drawn(80, 24).text();
    bench.history.push(Box::new(several().remove(2)));
    let later = bench.drawn(80, 24).text();
    assert!(frozen.contains("FROZEN -0s") && later.contains("FROZEN -1s"), "{later}");
    assert!(later.contains("CONTROL PLANE"));
    bench.press(Press::Char('0'));
    assert!(!bench.drawn(80, 24).text().contains("CONTROL PLANE"));
    bench.press(Press::Char('N'));
    assert_eq!(bench.state.cursor, Some(1));
    bench.looks_like(expect_file!["../../../tests/golden/top/past.txt"]);
    bench.press(Press::Char('['));
    assert_eq!(bench.state.cursor, Some(0));
}

#[test]
fn a_hostile_name_reaches_no_screen_unescaped() {
    let mut bench = Bench::incident();
    let mut snapshot = several().remove(1);
    for table in &mut snapshot.tables {
        table.name = Some("a\u{1b}[2J\u{202e}b\u{9b}31m\u{7}".to_owned());
        table.workload = Default::default();
    }
    bench.history.push(Box::new(snapshot));
    let all = [Press::Enter, Press::Tab, Press::Tab, Press::Tab];
    for key in all {
        for (columns, rows) in SIZES {
            let said = bench.drawn(columns, rows).text();
            let bad = said.chars().find(|char| {
                char.is_control() && *char != '\n' || "\u{202e}\u{9b}".contains(*char)
            });
            assert_eq!(bad, None, "{said}");
        }
        bench.press(key);
    }
}

#[test]
fn lines_of_panes_are_scrolled_and_kept_within() {
    let mut bench = Bench::incident();
    bench.traced = (0..100).map(|number| format!("drop {number} of a\u{1b}[2J")).collect();
    let finding = Finding {
        id: "full",
        severity: Severity::Critical,
        title: "the table of rt is full".to_owned(),
        evidence: (0..40).map(|number| format!("evidence {number}")).collect(),
        fixes: vec![Fix {
            title: "do not track it".to_owned(),
            now: vec!["nft add rule ip raw prerouting udp dport 53 notrack".to_owned()],
            ..Fix::default()
        }],
        about: Vec::new(),
    };
    bench.advice = advice::rows(&[finding], 80, false);
    for (pane, first, last) in [
        (Pane::Trace, "drop 0", "drop 99"),
        (Pane::Doctor, "1. CRITICAL: the table of rt is full", "nft add rule"),
    ] {
        bench.state.pane = pane;
        bench.press(Press::Home);
        assert!(bench.drawn(80, 24).text().contains(first), "{first}");
        bench.press(Press::End);
        let said = bench.drawn(80, 24).text();
        assert!(said.contains(last) && !said.contains(first), "{said}");
        assert!(!said.contains('\u{1b}'));
    }
    bench.looks_like(expect_file!["../../../tests/golden/top/doctor.txt"]);
}

/// 200 namespaces, and lists of 10,000.
fn many() -> Snapshot {
    let mut snapshot = several().remove(1);
    let judged: Vec<_> = snapshot.tables.iter().filter(|table| table.is_judged).cloned().collect();
    let entry = top_entry();
    snapshot.tables = (0..200_u64)
        .map(|number| {
            let mut table = judged[usize::try_from(number).unwrap() % judged.len()].clone();
            table.id = 1000 + number;
            table.name = Some(format!("netns-{number}"));
            table.workload = Default::default();
            table.age = Duration::ZERO;
            let entries = (0..50_u16)
                .map(|number| {
                    let mut entry = entry.clone();
                    entry.key.src[2..4].copy_from_slice(&number.to_be_bytes());
                    entry
                })
                .collect();
            table.top =
                vec![TopList { stream: Stream::Drops, by: By::Source, since: None, entries }];
            table
        })
        .collect();
    let longest: &mut Vec<_> = &mut snapshot.tables[0].top[0].entries;
    *longest = (0..10_000_u16)
        .map(|number| {
            let mut entry = entry.clone();
            entry.key.src[2..4].copy_from_slice(&number.to_be_bytes());
            entry
        })
        .collect();
    snapshot
}

#[test]
fn panes_work_on_many_namespaces_and_keys() {
    let mut bench = Bench::new(vec![many(), many()]);
    bench.history = History::new(HistoryBounds { readings: 600, bytes: 1 << 30 });
    bench.history.push(Box::new(many()));
    bench.press(Press::Char('/'));
    bench.type_all("netns-0");
    bench.press(Press::Enter);
    bench.press(Press::Enter);
    assert_eq!(bench.state.netns(), Some(1000));
    bench.press(Press::End);
    let said = bench.drawn(80, 24).text();
    assert!(said.contains("source of 10000"), "{said}");
    bench.press(Press::Escape);
    for _ in 0..30 {
        bench.press(Press::PageDown);
    }
    assert!(bench.drawn(80, 24).text().contains("(200)"));
}

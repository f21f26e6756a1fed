//! What is watched, like sar: a line a tick and table, the header again every screenful, loud lines when
//! a table saturates and recovers, a summary at the end.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    measure::Measure,
    others::others,
    preamble::preamble,
    shown::ShownTops,
    summary, who,
    words::{count, marked, name, number, percent, shortened, signed, state, time_to_full},
    worst::worst,
    wrap::wrapped,
};
use crate::{
    model::{Change, Snapshot, Table, figure::Figure, others::Others},
    output::escape::escaped,
    record::{
        sample::Access,
        session::{Epoch, Header},
    },
};

/// How the terminal is.
#[derive(Clone, Debug)]
pub struct Style {
    pub columns: usize,
    pub rows: usize,
    pub colour: bool,
    pub zone: jiff::tz::TimeZone,
    pub tops: ShownTops,
}

/// A column: what stands above it, how wide it is, and how soon it is left out of a narrow
/// terminal (0: never).
struct Column {
    title: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&Table) -> String,
}

/// The name's column, on a narrow terminal, on others, and where there is room beside all columns: the
/// name of a pod is long.
const NARROW_NAME_WIDTH: usize = 10;
const NAME_WIDTH: usize = 15;
const WIDE_NAME_WIDTH: usize = 38;

const COLUMNS: &[Column] = &[
    Column { title: "entries", width: 8, rank: 3, cell: |table| count(table.entries) },
    Column { title: "limit", width: 8, rank: 6, cell: |table| count(table.limit) },
    Column { title: "fill", width: 6, rank: 0, cell: |table| percent(table.fill) },
    Column { title: "trend/s", width: 8, rank: 7, cell: |table| signed(table.trend_per_s) },
    Column { title: "full in", width: 8, rank: 2, cell: time_to_full },
    Column { title: "insert/s", width: 9, rank: 5, cell: |table| rate(&table.insertions) },
    Column { title: "remove/s", width: 9, rank: 9, cell: |table| rate(&table.removals) },
    Column { title: "drop/s", width: 9, rank: 0, cell: |table| rate(&table.dropped) },
    // Of those, because the table is full.
    Column { title: "full/s", width: 9, rank: 4, cell: |table| rate(&table.drops.table_full) },
    Column { title: "evict/s", width: 8, rank: 8, cell: |table| rate(&table.evictions.early_drop) },
    Column { title: "invalid/s", width: 9, rank: 10, cell: |table| rate(&table.invalid) },
];

/// Rows, loud lines and namespaces with lists, at most, of one tick.
const MOST: usize = 20;

/// The running output.
pub struct Text {
    style: Style,
    since_header: usize,
    name_width: usize,
    columns: Vec<&'static Column>,
}

impl Text {
    pub fn new(style: Style) -> Self {
        let mut text = Self { style, since_header: 0, name_width: 0, columns: Vec::new() };
        text.fit();
        text
    }

    /// The terminal has another size now; the header comes again in that.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        if (columns, rows) != (self.style.columns, self.style.rows) {
            (self.style.columns, self.style.rows) = (columns, rows);
            self.since_header = 0;
            self.fit();
        }
    }

    fn fit(&mut self) {
        let columns = self.style.columns;
        self.name_width = if columns < 80 { NARROW_NAME_WIDTH } else { NAME_WIDTH };
        self.columns = fitting(columns, self.name_width);
        if self.columns.len() == COLUMNS.len() {
            let room = columns.saturating_sub(wide(&self.columns, self.name_width));
            self.name_width = self.name_width.saturating_add(room).min(WIDE_NAME_WIDTH);
        }
    }

    /// What is watched and how, and the tables as they are now.
    pub fn start(
        &mut self,
        out: &mut impl Write,
        header: &Header,
        epoch: Epoch,
        snapshot: &Snapshot,
    ) -> io::Result<()> {
        for line in preamble(header, epoch, snapshot) {
            wrapped(out, &line, self.style.columns)?;
        }
        self.rows(out, snapshot, Table::is_tracking)?;
        self.changes(out, snapshot)?;
        self.tops(out, snapshot)
    }

    /// What happened since the snapshot before.
    pub fn tick(&mut self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        self.rows(out, snapshot, has_something_to_say)?;
        self.changes(out, snapshot)?;
        self.tops(out, snapshot)
    }

    /// Something that happened beside the figures.
    pub fn note(&self, out: &mut impl Write, note: &str) -> io::Result<()> {
        wrapped(out, &format!("note: {}", escaped(note)), self.style.columns)
    }

    pub fn finish(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        for line in summary::lines(snapshot, &self.style.tops) {
            wrapped(out, &line, self.style.columns)?;
        }
        Ok(())
    }

    /// Who it is, of those that anything happens to.
    fn tops(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let tops = &self.style.tops;
        let wanted = |table: &&Table| table.saturated || tops.always && !table.top.is_empty();
        let judged = snapshot.tables.iter().filter(|table| table.is_judged);
        let (tables, more) = worst(judged.filter(wanted).collect(), MOST);
        for table in tables {
            // A census is taken now and then: each is shown once.
            let held = snapshot.census.as_ref().filter(|(_, age)| *age <= snapshot.interval);
            let held = held.map(|_| who::holding(snapshot, table, tops)).unwrap_or_default();
            for line in who::lines(table, tops, Measure::Now).into_iter().chain(held) {
                wrapped(
                    out,
                    &format!("  {}: {}", escaped(&name(table)), escaped(&line)),
                    self.style.columns,
                )?;
            }
        }
        if more > 0 {
            let line = format!("  and {more} more namespaces, whose lists --netns or JSON shows");
            wrapped(out, &line, self.style.columns)?;
        }
        Ok(())
    }

    fn rows(
        &mut self,
        out: &mut impl Write,
        snapshot: &Snapshot,
        wanted: fn(&Table) -> bool,
    ) -> io::Result<()> {
        let time = snapshot.time.to_zoned(self.style.zone.clone()).strftime("%H:%M:%S").to_string();
        let judged = snapshot.tables.iter().filter(|table| table.is_judged);
        let (mut tables, more) = worst(judged.filter(|table| wanted(table)).collect(), MOST);
        // Where nothing moves, how full the fullest table is still is worth a line.
        if tables.is_empty() {
            tables.extend(snapshot.fullest());
        }
        for table in &tables {
            self.header(out)?;
            let width = self.name_width;
            let mut line = format!("{time} {:<width$}", shortened(&name(table), width));
            for column in &self.columns {
                line.push_str(&format!(" {:>width$}", (column.cell)(table), width = column.width));
            }
            if table.age >= OLD {
                line.push_str(&format!(" ({} s ago)", table.age.as_secs()));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        if more > 0 {
            self.header(out)?;
            let line = format!("{time} and {more} more namespaces, less full or quieter");
            wrapped(out, &line, self.style.columns)?;
        }
        // Where there are strangers' alone, they have their lines.
        let any = snapshot.tables.is_empty() || snapshot.tables.iter().any(|t| t.is_judged);
        if tables.is_empty() && any {
            self.header(out)?;
            wrapped(out, &format!("{time} {}", idle(snapshot)), self.style.columns)?;
        }
        let of = |others: &Others<'_>| others.tables.iter().any(|table| wanted(table));
        for line in others(snapshot, of, Measure::Now) {
            wrapped(out, &format!("{time} {line}"), self.style.columns)?;
        }
        Ok(())
    }

    fn header(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.since_header == 0 {
            let mut line = format!("{:<8} {:<width$}", "time", "netns", width = self.name_width);
            for column in &self.columns {
                line.push_str(&format!(" {:>width$}", column.title, width = column.width));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        self.since_header = (self.since_header + 1) % self.style.rows.saturating_sub(2).max(5);
        Ok(())
    }

    fn changes(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let changed = snapshot.tables.iter().filter(|t| t.is_judged && t.change.is_some());
        let (tables, _) = worst(changed.clone().collect(), MOST);
        for table in &tables {
            if let Some(change) = table.change {
                self.loud(out, table, change)?;
            }
        }
        let untold = |of: Change| {
            let all = changed.clone().filter(|table| table.change == Some(of)).count();
            all - tables.iter().filter(|table| table.change == Some(of)).count()
        };
        for (of, words) in [(Change::Saturated, "TABLES FULL"), (Change::Recovered, "recovered")] {
            let more = untold(of);
            if more > 0 {
                wrapped(out, &format!("*** and {more} more: {words}"), self.style.columns)?;
            }
        }
        Ok(())
    }

    fn loud(&self, out: &mut impl Write, table: &Table, change: Change) -> io::Result<()> {
        let name = escaped(&name(table));
        // Emptied, or given more room, since it dropped.
        let has_room = table.fill.is_some_and(|fill| fill < 0.5);
        let (colour, text) = match change {
            Change::Saturated => {
                let full = if has_room { "TABLE WAS FULL, and has room now" } else { "TABLE FULL" };
                ("\x1b[1;31m", format!("*** {name}: {full}: {}", state(table)))
            }
            Change::Recovered => ("\x1b[1;32m", format!("*** {name}: recovered: {}", state(table))),
        };
        if self.style.colour {
            write!(out, "{colour}")?;
        }
        wrapped(out, &text, self.style.columns)?;
        if self.style.colour {
            write!(out, "\x1b[0m")?;
        }
        Ok(())
    }
}

/// A reading that is older is said to be.
const OLD: Duration = Duration::from_secs(1);

/// What there is to say where no table has a line: never of a namespace that was not looked into.
fn idle(snapshot: &Snapshot) -> String {
    let (judged, others): (Vec<_>, Vec<_>) = snapshot.tables.iter().partition(|t| t.is_judged);
    let seen = if others.is_empty() { "seen" } else { "that are the host's" };
    let there = judged.into_iter().filter(|table| table.access != Access::Unseen);
    let (unknown, read): (Vec<_>, Vec<_>) = there.partition(|table| table.is_unknown());
    let first = unknown.iter().find_map(|table| table.unread.as_deref()).unwrap_or_default();
    match (read.len(), unknown.len()) {
        (0, 0) => "no namespace is there any more".to_owned(),
        (1, 0) => format!("nothing is tracked in the one namespace {seen}"),
        (more, 0) => format!("nothing is tracked in the {more} namespaces {seen}"),
        (0, 1) => format!("the one namespace cannot be read: {}", escaped(first)),
        (0, all) => format!("none of {all} namespaces can be read: {}", escaped(first)),
        (read, more) => format!(
            "nothing is tracked in {read} of {} namespaces; {more} cannot be read: {}",
            read + more,
            escaped(first)
        ),
    }
}

/// How wide a row is.
fn wide(columns: &[&Column], name_width: usize) -> usize {
    8 + 1 + name_width + columns.iter().map(|column| column.width + 1).sum::<usize>()
}

/// The columns that fit, the least needed left out first.
fn fitting(width: usize, name_width: usize) -> Vec<&'static Column> {
    let mut columns: Vec<_> = COLUMNS.iter().collect();
    while wide(&columns, name_width) > width {
        let Some(least) = columns.iter().map(|column| column.rank).max().filter(|rank| *rank > 0)
        else {
            break;
        };
        columns.retain(|column| column.rank != least);
    }
    columns
}

fn has_something_to_say(table: &Table) -> bool {
    if table.age > Duration::ZERO {
        // Nothing is new of it.
        return table.saturated || table.fill.is_some_and(|fill| fill >= 0.8);
    }
    let moved = |figure: &Figure| figure.per_s.is_some_and(|per_s| per_s > 0.0);
    table.saturated
        || table.change.is_some()
        || table.fill.is_some_and(|fill| fill >= 0.8)
        || [&table.insertions, &table.removals, &table.invalid].into_iter().any(moved)
        || table.drops.named().iter().any(|(_, figure)| moved(figure))
        || table.evictions.named().iter().any(|(_, figure)| moved(figure))
        || table.trend_per_s.is_some_and(|trend| trend != 0.0)
}

fn rate(figure: &Figure) -> String {
    match figure.per_s {
        None => "-".to_owned(),
        Some(per_s) if per_s > 0.0 => marked(figure.exactness, &number(per_s)),
        Some(_) => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ctwatch_abi::top::Key;

    use super::*;
    use crate::{
        model::census::{Census, SEED, Taken},
        output::fixtures::{FIRST, header, snapshots},
        record::{
            entry::{Held, Left, Status},
            sample::Owner,
        },
    };

    fn style(columns: usize) -> Style {
        Style {
            columns,
            rows: 24,
            colour: false,
            zone: jiff::tz::TimeZone::UTC,
            tops: ShownTops::default(),
        }
    }

    fn rendered(columns: usize) -> String {
        let mut text = Text::new(style(columns));
        let mut out = Vec::new();
        let [first, second] = snapshots();
        text.start(&mut out, &header(), FIRST, &first).unwrap();
        text.tick(&mut out, &second).unwrap();
        text.finish(&mut out, &second).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_census_is_shown_once() {
        let [_, mut snapshot] = snapshots();
        let mut census = Census::new(&[], SEED);
        let key = Key { netns: snapshot.tables[0].id, ..Key::default() };
        let (status, left) = (Status(1 << 3), Left::Seconds(9));
        census.enter(&Held { key, translated: key, status, state: 0, zone: 0, left });
        let taken = Arc::new(Taken {
            by: "walk".into(),
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            strayed: 0,
            kernel: Vec::new(),
            counted: census.finish(5),
            notes: Vec::new(),
        });
        let mut text = Text::new(style(200));
        for (age, shown) in [(300, true), (1300, false)] {
            snapshot.census = Some((Arc::clone(&taken), Duration::from_millis(age)));
            let mut out = Vec::new();
            text.tick(&mut out, &snapshot).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.contains("holding: "), shown, "{out}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for columns in 40..160 {
            for line in rendered(columns).lines() {
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn the_narrowest_terminal_still_says_what_matters() {
        let text = rendered(40);
        let header = text.lines().find(|line| line.starts_with("time")).unwrap();
        for title in ["netns", "fill", "drop/s"] {
            assert!(header.contains(title), "{header}");
        }
    }

    #[test]
    fn a_tick_reads_as_it_should() {
        let text = rendered(126);
        let expected = "00:00:01 rt                   200      200 100.0%     +200     FULL       \
                        217        17      1783      1783       17         0";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(
            "*** rt: TABLE FULL: 200 of 200 entries, 1783 packets dropped so far (table_full), \
             17 entries evicted"
        ));
        assert!(
            text.contains("  dropped: 1783 in all; table_full 1783; 0 no_memory, clash,"),
            "{text}"
        );
        assert!(text.contains("  evicted: early_drop 17; not measured gc"), "{text}");
    }

    #[test]
    fn a_table_that_is_full_at_the_start_is_cried_out_at_once() {
        let mut text = Text::new(style(120));
        let mut out = Vec::new();
        let [_, second] = snapshots();
        text.start(&mut out, &header(), FIRST, &second).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("*** rt: TABLE FULL: 200 of 200"));
    }

    #[test]
    fn strangers_are_one_line_and_never_loud() {
        let [_, mut snapshot] = snapshots();
        snapshot.tables[0].is_judged = false;
        snapshot.tables[0].owner = Owner::User(1000);
        snapshot.tables[0].name = Some("\u{1b}sh[1]".to_owned());
        let mut text = Text::new(style(200));
        let mut out = Vec::new();
        text.tick(&mut out, &snapshot).unwrap();
        text.finish(&mut out, &snapshot).unwrap();
        let out = String::from_utf8(out).unwrap();
        let now = "uid 1000: 1 namespace, 200 entries, 217 insert/s, 1783 drop/s (table_full); the \
                   fullest: \"\\u{1b}sh[1]\", 100.0%";
        assert!(out.contains(now), "{out}");
        assert!(out.contains("200 entries, 217 inserted, 1783 dropped (table_full);"), "{out}");
        assert!(!out.contains("***") && !out.contains('\u{1b}'), "{out}");
        assert!(!out.contains("nothing is tracked") && !out.contains("no namespace"), "{out}");
    }

    #[test]
    fn an_unknown_owner_is_said_with_the_reason() {
        let [mut first, _] = snapshots();
        first.tables[0].owner = Owner::Unknown("no \u{1b}way".to_owned());
        let mut out = Vec::new();
        Text::new(style(200)).start(&mut out, &header(), FIRST, &first).unwrap();
        let out = String::from_utf8(out).unwrap();
        let note = "the owner of rt is unknown, so it counts as the host's: no \\u{1b}way";
        assert!(out.contains(note), "{out}");
    }

    #[test]
    fn a_table_that_has_room_by_now_is_not_called_full() {
        let mut text = Text::new(style(120));
        let mut out = Vec::new();
        let [_, mut second] = snapshots();
        second.tables[0].fill = Some(0.0);
        text.start(&mut out, &header(), FIRST, &second).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("*** rt: TABLE WAS FULL, and has room now: "), "{said}");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let [mut first, _] = snapshots();
        first.tables[0].unread = Some("cannot enter /run/netns/rt: no\u{1b}".to_owned());
        let lines = preamble(&header(), FIRST, &first);
        let expected = "note: rt is not readable: cannot enter /run/netns/rt: no\\u{1b}";
        assert!(lines.iter().any(|line| line == expected), "{lines:?}");
    }

    #[test]
    fn what_was_not_entered_is_not_called_idle() {
        let [mut snapshot, _] = snapshots();
        let mut refused = snapshot.tables[0].clone();
        refused.access = Access::Refused;
        (refused.entries, refused.fill) = (None, None);
        refused.unread = Some("cannot enter /run/netns/rt: not permitted".to_owned());
        assert_eq!(idle(&snapshot), "nothing is tracked in the one namespace seen");
        snapshot.tables.push(refused.clone());
        let some = "nothing is tracked in 1 of 2 namespaces; 1 cannot be read: cannot enter";
        assert!(idle(&snapshot).starts_with(some), "{}", idle(&snapshot));
        snapshot.tables = vec![refused.clone(), refused];
        let none = "none of 2 namespaces can be read: cannot enter";
        assert!(idle(&snapshot).starts_with(none), "{}", idle(&snapshot));
        let mut text = Text::new(style(usize::MAX));
        let mut out = Vec::new();
        text.start(&mut out, &header(), FIRST, &snapshot).unwrap();
        text.tick(&mut out, &snapshot).unwrap();
        text.finish(&mut out, &snapshot).unwrap();
        let out = String::from_utf8(out).unwrap();
        for sentence in ["nothing is tracked", "tracked nothing", "of 2 namespaces track"] {
            assert!(!out.contains(sentence), "{sentence:?}: {out}");
        }
        assert!(out.contains("2 namespaces could not be read"), "{out}");
    }

    #[test]
    fn the_worst_of_many_are_shown_and_the_rest_counted() {
        use crate::model::figure::Bounds;
        let [_, mut snapshot] = snapshots();
        let one = snapshot.tables.remove(0);
        snapshot.tables = (0..500)
            .map(|number| {
                let dropped = Bounds::exactly(if number % 100 == 7 { 1000 + number } else { 1 });
                let dropped = dropped.figure(Some(0), Some(1.0));
                let name = Some(format!("n{number}"));
                let mut table = one.clone();
                (table.id, table.name, table.dropped) = (number, name, dropped);
                table
            })
            .collect();
        let mut out = Vec::new();
        Text::new(style(200)).tick(&mut out, &snapshot).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.lines().count() < 4 * MOST, "{out}");
        for number in [7, 107, 207, 307, 407] {
            assert!(out.contains(&format!(" n{number} ")), "n{number}: {out}");
        }
        assert!(out.contains("and 480 more namespaces"), "{out}");
        assert!(out.contains("*** and 480 more: TABLES FULL"), "{out}");
    }

    #[test]
    fn an_old_reading_is_marked_and_nothing_new() {
        let [_, mut snapshot] = snapshots();
        snapshot.tables[0].age = Duration::from_secs(7);
        let mut out = Vec::new();
        Text::new(style(200)).tick(&mut out, &snapshot).unwrap();
        assert!(String::from_utf8(out).unwrap().contains(" (7 s ago)"));
        let table = &mut snapshot.tables[0];
        (table.saturated, table.fill, table.change) = (false, Some(0.1), None);
        assert!(!has_something_to_say(table));
    }

    #[test]
    fn the_header_comes_again_every_screenful() {
        let mut text = Text::new(style(120));
        let mut out = Vec::new();
        let [_, second] = snapshots();
        for _ in 0..60 {
            text.tick(&mut out, &second).unwrap();
        }
        let out = String::from_utf8(out).unwrap();
        // 60 rows, each followed by a loud line that does not count, on a screen of 24.
        assert_eq!(out.lines().filter(|line| line.starts_with("time")).count(), 3);
    }
}

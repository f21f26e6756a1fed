//! A page of one morning.

use std::{collections::BTreeSet, sync::LazyLock};

use jiff::tz::TimeZone;

use super::{
    Input,
    bars::shares,
    csp::policy,
    morning::{self, BIDI, BREAKS_OUT, SCRIPT, Told, morning},
    page::page,
    words::{counted, thousands},
};
use crate::{
    diagnosis::report::{Finding, Fix, Report, Severity},
    model::{
        Model,
        figure::Bounds,
        story::{self, Mark, MarkKind, Story, bounds},
        verdict::situations::{table, unread},
    },
    output::{fixtures::header, golden::report, services::Services},
    record::{
        sample::{Owner, Sample, TableSample},
        session::Header,
    },
};

fn told() -> &'static Told {
    static TOLD: LazyLock<Told> = LazyLock::new(morning);
    &TOLD
}

fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(2))
}

fn hostile_report() -> Report {
    let mut report = report();
    report.findings.insert(
        0,
        Finding {
            id: "x",
            severity: Severity::Critical,
            title: format!("the table of {SCRIPT} is full"),
            evidence: vec![BIDI.to_owned(), BREAKS_OUT.to_owned()],
            fixes: vec![Fix {
                title: SCRIPT.to_owned(),
                now: vec![format!("ip netns exec '{SCRIPT}' true"), BIDI.to_owned()],
                ..Fix::default()
            }],
            about: Vec::new(),
        },
    );
    report
}

fn hostile_header() -> Header {
    let header = header();
    Header { kernel: SCRIPT.to_owned(), notes: vec![BREAKS_OUT.to_owned()], ..header }
}

fn rendered() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let services = Services::parse("domain 53/udp\nhttps 443/tcp\n");
        let (report, header) = (hostile_report(), hostile_header());
        let input = Input {
            story: &told().story,
            header: &header,
            report: Some(&report),
            services: &services,
            zone: &zone(),
        };
        page(&input)
    });
    &PAGE
}

/// A tag: its name and its attributes.
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
}

/// All tags, as a browser would find them, and what is within the style and the script.
fn tags(page: &str) -> (Vec<Tag<'_>>, Vec<(&str, &str)>) {
    let (mut tags, mut raw) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find(['>', ' ', '/']).unwrap();
        let end = if rest.starts_with('/') { rest.find('>').unwrap() } else { end };
        let name = &rest[..end];
        rest = &rest[end..];
        let mut attributes = Vec::new();
        while let Some(more) = rest.strip_prefix(' ') {
            let end = more.find(['=', ' ', '>']).unwrap();
            let (key, after) = more.split_at(end);
            match after.strip_prefix("=\"") {
                Some(value) => {
                    let end = value.find('"').unwrap();
                    attributes.push((key, &value[..end]));
                    rest = &value[end + 1..];
                }
                None => {
                    attributes.push((key, ""));
                    rest = after;
                }
            }
        }
        rest = rest.strip_prefix('>').unwrap_or_else(|| panic!("{name}: {:.60}", rest));
        if matches!(name, "style" | "script") {
            let end = rest.find(&format!("</{name}>")).unwrap();
            raw.push((name, &rest[..end]));
            rest = &rest[end..];
        }
        tags.push(Tag { name, attributes });
    }
    (tags, raw)
}

#[test]
fn the_page_needs_no_network_and_no_handler() {
    let (tags, _) = tags(rendered());
    assert!(tags.len() > 1_000, "{}", tags.len());
    for Tag { name, attributes } in &tags {
        for (key, value) in attributes {
            assert!(!key.to_ascii_lowercase().starts_with("on"), "{name} {key}");
            assert!(
                !matches!(*key, "src" | "srcset" | "style" | "xlink:href" | "action"),
                "{name} {key}"
            );
            assert!(*key != "href" || value.starts_with('#'), "{name} {key}={value}");
        }
    }
    for scheme in ["http:", "https:", "javascript:", "url(h", "@import", "//cdn"] {
        assert!(!rendered().contains(scheme), "{scheme}");
    }
}

#[test]
fn no_element_is_of_a_stranger() {
    let (all, raw) = tags(rendered());
    let known: BTreeSet<&str> = "!DOCTYPE a article bdi body button caption circle code dd defs details div \
        dl dt figcaption figure h1 h2 h3 h4 h5 head header html li line main meta ol p path pattern pre rect \
        script section span strong style summary svg table tbody td text th thead title tr ul"
        .split_whitespace()
        .collect();
    let names: BTreeSet<&str> = all.iter().map(|tag| tag.name.trim_start_matches('/')).collect();
    let strange: Vec<_> = names.difference(&known).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(raw.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["style", "script"]);
    // They are there to read, as text.
    assert!(rendered().contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(rendered().contains("\\u{202e}"));
    for hidden in ['\u{202e}', '\u{2066}', '\u{1b}', '\u{9b}', '\u{7}'] {
        assert!(!rendered().contains(hidden), "{hidden:?}");
    }
}

#[test]
fn each_tag_is_closed() {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let (all, _) = tags(rendered());
    let mut open = Vec::new();
    for tag in all.iter().filter(|tag| !VOID.contains(&tag.name)) {
        match tag.name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None => open.push(tag.name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_policy_names_the_style_and_the_script() {
    let (all, raw) = tags(rendered());
    let of = |name: &str| raw.iter().find(|(known, _)| *known == name).unwrap().1;
    let is_policy =
        |tag: &&Tag<'_>| tag.attributes.contains(&("http-equiv", "Content-Security-Policy"));
    let meta = all.iter().find(is_policy).unwrap();
    let content = meta.attributes.iter().find(|(key, _)| *key == "content").unwrap().1;
    assert_eq!(content, policy(of("style"), of("script")));
    assert!(
        content.starts_with("default-src 'none'; ") && !content.contains("unsafe"),
        "{content}"
    );
    // It stands before what it is to bind.
    assert!(rendered().find(content).unwrap() < rendered().find("<style>").unwrap());
}

#[test]
fn what_the_style_calls_is_in_the_page() {
    let (all, raw) = tags(rendered());
    let ids: BTreeSet<&str> = all
        .iter()
        .flat_map(|tag| &tag.attributes)
        .filter(|(key, _)| *key == "id")
        .map(|(_, value)| *value)
        .collect();
    assert!(raw[0].1.contains("url(#hatch)") && ids.contains("hatch"));
    let links = all.iter().flat_map(|tag| &tag.attributes).filter(|(key, _)| *key == "href");
    for (_, link) in links {
        assert!(ids.contains(link.trim_start_matches('#')), "{link}");
    }
}

#[test]
fn figures_are_those_of_the_last_snapshot() {
    let Told { story, last } = told();
    assert!(last.tables.len() >= 7);
    for table in last.tables.iter().filter(|table| table.is_tracking()) {
        let of = story.tables.iter().find(|story| story.id() == table.id).unwrap();
        for (figure, known) in [
            (&table.dropped, of.counts.dropped),
            (&table.drops.table_full, of.counts.table_full()),
            (&table.drops.nat_exhausted, of.counts.reasons[story::NAT_EXHAUSTED]),
            (&table.evictions.early_drop, of.counts.early_drop),
            (&table.insertions, of.counts.insertions),
        ] {
            assert_eq!(bounds(figure), known, "{}", table.inode);
            if known == of.counts.reasons[story::NAT_EXHAUSTED] && known != Bounds::exactly(0) {
                assert_eq!(table.inode, 3, "it is shown of the worst table alone");
                continue;
            }
            assert!(rendered().contains(&counted(known)), "{}: {}", table.inode, counted(known));
        }
        let before = std::iter::once(None).chain(of.buckets.iter().map(Some));
        let drawn =
            before.zip(&of.buckets).map(|(before, bucket)| shares(of, before, bucket).surely());
        assert_eq!(Some(drawn.sum()), table.dropped.total, "bars add up to the total");
        for bucket in of.buckets.windows(2) {
            assert!(bucket[0].to < bucket[1].from);
        }
    }
    let worst = &story.tables[0];
    let full = counted(worst.counts.table_full());
    assert_eq!(worst.last.name.as_deref(), Some("edge"));
    assert!(full.starts_with("exactly "), "{full}");
    let headline = rendered().split("<h1>").nth(1).unwrap().split("</h1>").next().unwrap();
    assert!(headline.contains(&full) && headline.contains("was full for"), "{headline}");
    let list = worst.lists.iter().find(|list| list.by == ctwatch_abi::top::By::Source).unwrap();
    let most = list.entries.iter().map(|entry| entry.at_least()).max().unwrap();
    assert!(headline.contains(&thousands(most)), "{headline}");
}

#[test]
fn gaps_and_censuses_are_said_to_be() {
    let Told { story, .. } = told();
    assert_eq!(story.gaps.len(), 1, "{:?}", story.gaps);
    let long = story.gaps[0].to - story.gaps[0].from;
    assert_eq!(long.as_secs(), morning::GAP.end - morning::GAP.start + morning::STEP);
    assert!(rendered().contains("no snapshot for 8\u{a0}min 5\u{a0}s"));
    assert!(rendered().contains("Pale between two: not measured."));
    let worst = &story.tables[0];
    assert!(worst.held.len() > 5, "{}", worst.held.len());
    // Of those without one nothing is drawn.
    let columns = rendered().matches("class=\"held pinned\"").count();
    assert_eq!(
        columns,
        story.tables.iter().filter(|table| table.held.iter().any(|h| h.holds.pinned > 0)).count()
    );
}

fn page_of(story: &story::WholeStory) -> String {
    let (header, services) = (header(), Services::default());
    page(&Input { story, header: &header, report: None, services: &services, zone: &zone() })
}

fn headline(page: &str) -> String {
    let headline = page.split("<h1>").nth(1).unwrap().split("</h1>").next().unwrap();
    headline.replace("<bdi>", "").replace("</bdi>", "").replace('\u{a0}', " ")
}

#[test]
fn a_quiet_morning_is_told_as_such() {
    let quiet = morning::short(&[(100, 0), (100, 0), (120, 0)], true);
    let page = page_of(&quiet);
    assert_eq!(
        headline(&page),
        "No table was seen full, and conntrack dropped nothing. The fullest, rt, was 12.0% full at 06:00:10."
    );
    assert!(page.contains("No packet was dropped in this time."));
    assert!(page.contains("No census was taken") && !page.contains("Findings and fixes"));
}

#[test]
fn what_was_not_measured_is_not_said_to_be_none() {
    let blind = morning::short(&[(100, 0), (100, 0)], false);
    let page = page_of(&blind);
    assert!(
        headline(&page).contains("whether packets were dropped is not known"),
        "{}",
        headline(&page)
    );
    assert!(!page.contains("No packet was dropped"));
    assert!(page.contains("No dropped packet was seen in this time; some could not be seen."));
}

#[test]
fn drops_without_a_full_table_name_the_reason() {
    let page = page_of(&morning::short(&[(100, 0), (100, 40)], true));
    let headline = headline(&page);
    assert!(
        headline.starts_with("No table was seen full; conntrack dropped exactly 40 packets in rt"),
        "{headline}"
    );
}

#[test]
fn a_full_table_that_dropped_nothing_says_so() {
    let page = page_of(&morning::short(&[(100, 0), (1_000, 0), (1_000, 0), (100, 0)], true));
    let headline = headline(&page);
    assert!(
        headline.starts_with("The conntrack table of rt was full for at least 5 s between"),
        "{headline}"
    );
    assert!(headline.contains("no packet was dropped"), "{headline}");
}

#[test]
fn the_headline_covers_all_tables() {
    let (mut model, mut story) = (Model::default(), Story::new(10));
    for (second, entries, drop) in [(0, 10, 0), (5, 1_000, 3), (10, 1_000, 3)] {
        let user =
            TableSample { owner: Owner::User(7), is_judged: false, ..table(2, "pod", entries, 0) };
        let tables = vec![table(1, "rt", 10, drop), user, unread(3, "sealed")];
        let sample = Sample { limit: Some(1_000), probed: None, ..morning::sample(second, tables) };
        story.take(&model.advance(&sample));
    }
    let page = page_of(&story.finish().unwrap());
    let headline = headline(&page);
    assert!(
        headline.starts_with("No table of the host was seen full; conntrack dropped"),
        "{headline}"
    );
    let page = page.replace('\u{a0}', " ").replace("<bdi>", "").replace("</bdi>", "");
    assert!(
        page.contains("1 other table was full or dropped packets: pod (full for "),
        "{page:.9000}"
    );
    assert!(page.contains("1 namespace could not be read"));
}

#[test]
fn none_dropped_is_said_only_where_all_was_read() {
    let (mut model, mut story) = (Model::default(), Story::new(10));
    for second in [0, 5] {
        let tables = vec![table(1, "rt", 10, 0), unread(3, "sealed")];
        let sample = Sample { limit: Some(1_000), probed: None, ..morning::sample(second, tables) };
        story.take(&model.advance(&sample));
    }
    let headline = headline(&page_of(&story.finish().unwrap()));
    assert!(headline.starts_with("No table was seen full. The fullest"), "{headline}");
}

#[test]
fn a_page_of_nothing_is_a_page() {
    let mut story = Story::new(10);
    let none = morning::sample(0, Vec::new());
    story.take(&Model::default().advance(&none));
    story.mark(Mark { time: none.time, kind: MarkKind::Gap, text: String::new() });
    let page = page_of(&story.finish().unwrap());
    assert_eq!(headline(&page), "Nothing was tracked in any table that could be read.");
    assert!(page.ends_with("</html>"));
}

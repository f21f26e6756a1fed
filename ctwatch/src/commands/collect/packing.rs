//! What was collected, as the files of an archive.

use std::{collections::HashSet, io::Write, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::watching::Watched;
use crate::{
    collect::{
        archive::{Archive, mangled},
        gather,
        machine::{self, Named},
        readme::Readme,
        spool::{PackedText, Spool},
    },
    commands::setup,
    host,
    host::netns::{self, Netns},
    model::census::Taken,
    record::facts::Facts,
    recording::{
        IN_BUNDLE,
        frame::Encoder,
        line::{Line, Segment},
        mask::Mask,
    },
};

/// A line of a recording is no longer: beyond this, rules are left out.
const LONGEST: u64 = 48 << 20;
const FACTS: &str = "ctwatch/facts.json";

/// All of it.
pub(super) struct Collected {
    mask: Option<Mask>,
    time: Timestamp,
    pub(super) watched: Option<Watched>,
    /// Conntrack is not there, so that there was nothing to watch.
    pub(super) is_absent: bool,
    pub(super) facts: Option<Facts>,
    pub(super) census: Option<Taken>,
    pub(super) counts_apart: Duration,
    /// What was loaded meanwhile.
    pub(super) loaded: Option<Vec<String>>,
    /// Namespaces that are not looked into.
    pub(super) others: usize,
    pub(super) missing: Vec<String>,
    namespaces: Vec<(String, String)>,
    names: HashSet<String>,
    pieces: Vec<(String, PackedText)>,
}

impl Collected {
    pub(super) fn new(mask: Option<Mask>, time: Timestamp) -> Self {
        Self {
            mask,
            time,
            watched: None,
            is_absent: false,
            facts: None,
            census: None,
            counts_apart: Duration::ZERO,
            loaded: None,
            others: 0,
            missing: Vec::new(),
            namespaces: Vec::new(),
            names: HashSet::new(),
            pieces: Vec::new(),
        }
    }

    /// What the archive is called, and the folder in it.
    pub(super) fn stem(&mut self) -> String {
        let time = self.time.strftime("%Y%m%dT%H%M%SZ");
        format!("ctwatch-{}-{time}", mangled(&self.host()))
    }

    fn host(&mut self) -> String {
        let host = host::name().unwrap_or_else(|| "host".to_owned());
        match &mut self.mask {
            Some(mask) => mask.host(&host),
            None => host,
        }
    }

    fn netns(&mut self, name: &str) -> String {
        match &mut self.mask {
            Some(mask) => mask.netns(name),
            None => name.to_owned(),
        }
    }

    pub(super) fn miss(&mut self, what: &str, why: &str) {
        self.missing.push(format!("{what}: {why}"));
    }

    pub(super) fn taken<T>(&mut self, outcome: Result<T>, what: &str) -> Option<T> {
        outcome.inspect_err(|why| self.miss(what, &format!("{why:#}"))).ok()
    }

    fn piece(&mut self, name: String, text: &str) {
        match PackedText::of(text) {
            Ok(text) => self.pieces.push((name, text)),
            Err(why) => self.miss(&name, &why.to_string()),
        }
    }

    fn pieces(&mut self, pieces: Vec<Named>) {
        for (name, text) in pieces {
            match text {
                Ok(text) if text.is_empty() => {}
                Ok(text) => self.piece(name, &text),
                Err(why) => self.miss(&name, &why),
            }
        }
    }

    pub(super) fn of_machine(&mut self, pieces: Vec<Named>, found: &[Netns]) {
        self.pieces(pieces);
        // Known before what they may stand in.
        for netns in found {
            self.netns(&netns.shown());
        }
    }

    pub(super) fn of_namespaces(
        &mut self,
        found: &[Netns],
        gathered: Vec<gather::Gathered>,
        again: bool,
    ) {
        let own = netns::current().map(|own| own.inode).ok();
        let mut seen = HashSet::new();
        for gather::Gathered { at, entries, counters, sysctls, table } in gathered {
            let Some(netns) = found.get(at) else { continue };
            seen.insert(at);
            let name = match own == Some(netns.inode) {
                true => None,
                false => Some(self.netns(&netns.shown())),
            };
            let of = |command: &str, folder: &str| match &name {
                None => format!("sos_commands/{folder}/{command}"),
                Some(name) => {
                    let name = mangled(name);
                    format!(
                        "sos_commands/networking/namespaces/{name}/ip_netns_exec_{name}_{command}"
                    )
                }
            };
            let table_name = |command: &str| match &name {
                None => format!("sos_commands/conntrack/{command}"),
                Some(name) => {
                    format!("sos_commands/conntrack/ip_netns_exec_{}_{command}", mangled(name))
                }
            };
            let again_is = if again { ".1" } else { "" };
            let counted = table_name(&format!("conntrack_-S{again_is}"));
            if again {
                self.pieces(vec![(counted, counters)]);
                continue;
            }
            self.pieces(vec![(counted, counters), (of("sysctl_-a", "kernel"), sysctls)]);
            let mut about = vec![format!("inode {}", netns.inode)];
            about.push(match entries {
                Ok(entries) => format!("{entries} entries"),
                Err(why) => format!("entries unknown: {why}"),
            });
            match table {
                None => {}
                Some(Err(why)) => self.miss(&table_name("conntrack_-L_-o_extended"), &why),
                Some(Ok(table)) => {
                    about.push(format!("{} listed (not those that are over)", table.listed));
                    if let Some(why) = &table.cut {
                        self.miss(&format!("more entries of {}", netns.shown()), why);
                    }
                    if table.is_torn {
                        about.push("it changed while it was listed".to_owned());
                    }
                    if table.listed > 0 {
                        let file = match (table.is_by_proc, &name) {
                            (false, _) => table_name("conntrack_-L_-o_extended"),
                            (true, None) => "proc/net/nf_conntrack".to_owned(),
                            (true, Some(_)) => of("cat_proc_net_nf_conntrack", "kernel"),
                        };
                        self.pieces.push((file, table.text));
                    }
                }
            }
            let name = name.unwrap_or_else(|| "this one".to_owned());
            self.namespaces.push((name, about.join(", ")));
        }
        let unseen: Vec<String> = found
            .iter()
            .enumerate()
            .filter(|(at, _)| !seen.contains(at))
            .map(|(_, netns)| netns.shown())
            .collect();
        if !unseen.is_empty() {
            let what = if again { "counters again" } else { "entries, counters and sysctls" };
            let names = unseen.join(", ");
            self.miss(&format!("{what} of {names}"), "gone, or there was no time");
        }
    }

    /// The counters at two moments, with all that the doctor goes by, as a recording.
    fn recording(&mut self) -> Result<PackedText> {
        let mut lines = vec![Line::Segment(Segment::new(1, self.time, &setup::origin()))];
        if let Some(facts) = &self.facts {
            let facts = Box::new(facts.clone());
            lines.push(Line::Facts { time: self.time, facts });
        }
        match self.watched.take() {
            None if self.is_absent => lines.push(Line::Absent { was_there: false }),
            // That it could not be read does not say that it is not there.
            None => {}
            Some(Watched { header, epoch, first, last }) => {
                let mut encoder = Encoder::default();
                lines.push(Line::Begin { again: false, header, epoch });
                lines.push(Line::Tick(Box::new(encoder.encode(&first, true))));
                if let Some(taken) = self.census.take() {
                    lines.push(Line::Census { taken: Box::new(taken) });
                }
                lines.push(Line::Tick(Box::new(encoder.encode(&last, false))));
            }
        }
        lines.push(Line::End);
        let mut spool = Spool::new();
        for line in lines {
            let line = match &mut self.mask {
                Some(mask) => mask.line(line)?,
                None => line,
            };
            spool.write_all(&line.text()?)?;
        }
        Ok(spool.finish()?)
    }

    /// As they are in the recording, for whoever wants them alone.
    fn facts_alone(&mut self, facts: &Facts) -> Result<PackedText> {
        let mut value = serde_json::to_value(facts)?;
        if let Some(mask) = &mut self.mask {
            mask.value(&mut value);
        }
        let mut spool = Spool::new();
        serde_json::to_writer_pretty(&mut spool, &value)?;
        spool.line("")?;
        Ok(spool.finish()?)
    }

    /// Rules as a whole may be longer than any reader takes.
    fn shorten(&mut self) -> Result<()> {
        let Some(facts) = &mut self.facts else { return Ok(()) };
        let mut spool = Spool::new();
        serde_json::to_writer(&mut spool, facts)?;
        if spool.bytes() <= LONGEST {
            return Ok(());
        }
        for namespace in &mut facts.namespaces {
            for table in namespace.nft.iter_mut().chain(&mut namespace.legacy).flatten() {
                table.is_cut |= !table.chains.is_empty();
                table.chains.clear();
            }
        }
        self.miss("rules in full", "they are too long; those that need tracking are there");
        Ok(())
    }
}

/// Files that hold addresses, and those that hold whatever somebody was called. In the others are numbers,
/// and words of the kernel that a namespace may be called by.
const TABLES: [&str; 3] =
    ["conntrack_-L_-o_extended", "cat_proc_net_nf_conntrack", "proc/net/nf_conntrack"];
const WORDED: [&str; 4] = [
    "sos_commands/kernel/dmesg",
    "sos_commands/kernel/uname_-a",
    "sos_commands/host/hostname",
    "proc/version",
];

/// A line of a table: its addresses, and no other word.
fn of_table(line: &str, mask: &mut Mask) -> String {
    let words = line.split(' ').map(|word| match word.split_once('=') {
        Some((name, value)) if value.parse::<IpAddr>().is_ok() => {
            format!("{name}={}", mask.words(value))
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Its name alone: in which folder it was made says nothing elsewhere.
fn shown_file(file: &str) -> String {
    match file.rsplit('/').next() {
        Some(name) if file != "-" && !name.is_empty() => name.to_owned(),
        _ => "FILE".to_owned(),
    }
}

/// Writes it; what is missing in it.
pub(super) fn pack<W: Write>(
    mut collected: Collected,
    out: W,
    file: &str,
) -> Result<(W, Vec<String>)> {
    collected.shorten()?;
    let host = collected.host();
    let stem = collected.stem();
    let time = u64::try_from(collected.time.as_second()).unwrap_or_default();
    if let Some(facts) = &collected.facts {
        collected.missing.extend(facts.unvisited.iter().cloned());
        collected.missing.extend(machine::unknown(facts));
        let settings = machine::settings(facts);
        collected.pieces(settings);
    }
    let recording = collected.recording().context("cannot write the recording")?;
    let mut pieces = vec![(IN_BUNDLE.to_owned(), recording)];
    if let Some(facts) = collected.facts.take() {
        pieces.push((FACTS.to_owned(), collected.facts_alone(&facts)?));
    }
    let mut texts = std::mem::take(&mut collected.pieces);
    if let Some(mask) = &mut collected.mask {
        for (name, text) in &mut texts {
            if TABLES.iter().any(|table| name.ends_with(table)) {
                *text = text.mapped(|line| of_table(line, mask))?;
            } else if WORDED.contains(&name.as_str()) {
                *text = text.mapped(|line| mask.words(line))?;
            }
        }
        for text in &mut collected.missing {
            *text = mask.words(text);
        }
        for (_, about) in &mut collected.namespaces {
            *about = mask.words(about);
        }
    }
    texts.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, text) in texts {
        // Two that are called alike after their names were mangled.
        let mut unique = name.clone();
        let mut number = 2;
        while !collected.names.insert(unique.clone()) {
            unique = format!("{name}-{number}");
            number += 1;
        }
        pieces.push((unique, text));
    }
    let readme = Readme {
        host,
        kernel: host::kernel_release(),
        time: collected.time,
        file: shown_file(file),
        masked: collected.mask.is_some(),
        between: collected.counts_apart.as_secs_f64(),
        loaded: collected.loaded,
        namespaces: collected.namespaces,
        others: collected.others,
        pieces: pieces.iter().map(|(name, _)| name.clone()).collect(),
        missing: collected.missing.clone(),
    };
    let mut archive = Archive::new(out, &stem, time);
    archive.add("README", &PackedText::of(&readme.text())?)?;
    for (name, text) in &pieces {
        archive.add(name, text)?;
    }
    Ok((archive.finish()?, collected.missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_line_is_a_line_of_a_table() {
        let mut mask = Mask::random();
        // Somebody may call a namespace so.
        for name in ["src", "udp", "mark"] {
            mask.netns(name);
        }
        let line = "ipv4     2 udp      17 29 src=10.1.1.1 dst=10.2.2.2 sport=7 dport=53 [UNREPLIED] \
                    src=10.2.2.2 dst=10.1.1.1 sport=53 dport=7 mark=0 use=1";
        let masked = of_table(line, &mut mask);
        assert!(!masked.contains("10.1.1.1") && !masked.contains("10.2.2.2"), "{masked}");
        let rest = |line: &str| -> Vec<String> {
            let words = line.split_whitespace();
            words.filter(|word| !word.contains('.')).map(str::to_owned).collect()
        };
        assert_eq!(rest(&masked), rest(line));
    }
}

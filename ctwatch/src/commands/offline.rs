//! The doctor and the census of a box where ctwatch never ran: from what other tools printed there.

use std::{path::Path, time::Instant};

use anyhow::{Result, bail};

use crate::{
    bundle::{Bundle, InBundle, Misread, Reader},
    diagnosis::{
        self, Case, measurement,
        report::{Conntrack, NotUnderstood, Offline, Report},
        tracking,
        undecided::{Besides, undecided},
    },
    model::census::{KernelCount, Taken},
    output::aside,
    record::{facts::Facts, sample::Owner},
    recording::mask::Mask,
    unpack::{Opened, UnpackLimits},
};

/// What there is to say of what was printed: findings, fixes, and what is missing.
pub(super) fn examine(path: &Path, mask: Option<Mask>) -> Result<Report> {
    look(path, mask).map(|examined| examined.report)
}

/// The facts, and what was found by them.
pub(super) struct Examined {
    pub(super) facts: Facts,
    pub(super) report: Report,
}

pub(super) fn look(path: &Path, mask: Option<Mask>) -> Result<Examined> {
    let bundle = masked(read(path, Reader::new())?, mask.clone())?;
    let seen = Besides {
        entries: bundle.has_entries,
        settings: bundle.has_settings,
        bridges: !bundle.has_unknown_bridges,
        processes: bundle.has_processes,
    };
    let taken = hidden(taken(&bundle, Instant::now()), mask.clone())?;
    let unlisted = "no list of them is in what was read (conntrack -L -o extended tells)";
    let case = Case {
        facts: &bundle.facts,
        census: if bundle.has_entries { Ok(&taken) } else { Err(unlisted) },
        live: None,
        settings: Default::default(),
    };
    let offline = Offline {
        path: match &mask {
            Some(_) => "what was read".to_owned(),
            None => path.display().to_string(),
        },
        host: bundle.host.clone(),
        time: bundle.time.clone(),
        read: bundle.pieces.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
        not_recognised: bundle.unknown_pieces,
        not_understood: bundle.misread.iter().map(not_understood).collect(),
        more_not_understood: bundle.more_misread,
        undecided: undecided(&bundle.facts, seen),
        notes: if mask.is_some() { Vec::new() } else { notes(&bundle) },
    };
    let mut report = Report {
        tracking: tracking::tracking(&bundle.facts),
        findings: diagnosis::findings(&case),
        census: None,
        offline: Some(offline),
        ..measurement::offline(bundle.facts.release.clone(), bundle.facts.form)
    };
    if bundle.is_form_unknown {
        report.conntrack = Conntrack::Unknown;
    }
    Ok(Examined { facts: bundle.facts, report })
}

/// A census of what was listed, and what goes with it.
pub(super) struct ListedCensus {
    pub(super) taken: Taken,
    pub(super) limit: Option<u32>,
    pub(super) kernel: String,
}

pub(super) fn count(path: &Path, reader: Reader, mask: Option<Mask>) -> Result<ListedCensus> {
    let begun = Instant::now();
    let bundle = masked(read(path, reader)?, mask.clone())?;
    if !bundle.has_entries {
        bail!(
            "no entry of a table is in {}: what conntrack -L or /proc/net/nf_conntrack printed is \
             counted",
            path.display()
        );
    }
    let limit = bundle.facts.limit.as_ref().ok().copied();
    let kernel = bundle.facts.release.clone();
    for one in bundle.misread.iter().map(not_understood).take(5) {
        aside::say(&format!(
            "not understood: {} line {}{}: {}",
            one.piece,
            one.line,
            one.why.map_or_else(String::new, |why| format!(" ({why})")),
            one.text
        ));
    }
    let more = (bundle.misread.len() as u64).saturating_sub(5) + bundle.more_misread;
    if more > 0 {
        aside::say(&format!("not understood: {more} lines more"));
    }
    Ok(ListedCensus { taken: hidden(taken(&bundle, begun), mask)?, limit, kernel })
}

/// Without names and addresses, if somebody wants that: what is not understood is not shown, for nobody
/// knows what is a name in it, and pieces may be called after anything.
fn masked(mut bundle: Bundle, mask: Option<Mask>) -> Result<Bundle> {
    let Some(mut mask) = mask else { return Ok(bundle) };
    bundle.facts = mask.facts(bundle.facts)?;
    bundle.host = None;
    bundle.notes.clear();
    for one in &mut bundle.misread {
        (one.piece, one.text) = ("a piece".to_owned(), "(masked)".to_owned());
    }
    for place in &mut bundle.places {
        place.unlisted = place.unlisted.take().map(|_| "lines of it are missing".to_owned());
        place.counters.clear();
    }
    Ok(bundle)
}

fn hidden(taken: Taken, mask: Option<Mask>) -> Result<Taken> {
    match mask {
        Some(mut mask) => mask.taken(taken),
        None => Ok(taken),
    }
}

fn not_understood(of: &Misread) -> NotUnderstood {
    let Misread { piece, line, text, why } = of.clone();
    NotUnderstood { piece, line, text, why }
}

/// And what the counters of two readings say.
fn notes(bundle: &Bundle) -> Vec<String> {
    let mut notes = bundle.notes.clone();
    for place in &bundle.places {
        let name = place.name.as_deref().unwrap_or("host");
        notes.extend(place.unlisted.iter().map(|why| format!("{name}: {why}")));
        let [first, .., last] = place.counters.as_slice() else { continue };
        let (from, to) =
            if first.sums.dropped() <= last.sums.dropped() { (first, last) } else { (last, first) };
        let more = to.sums.dropped() - from.sums.dropped();
        if more > 0 {
            notes.push(format!(
                "{name}: {more} packets were dropped between {} and {}",
                from.piece, to.piece
            ));
        }
    }
    notes
}

fn taken(bundle: &Bundle, begun: Instant) -> Taken {
    let kernel = |place: &InBundle| KernelCount {
        netns: place.netns,
        owner: Owner::Host,
        is_judged: true,
        inode: place.inode,
        name: Some(place.name.clone().unwrap_or_else(|| "host".to_owned())),
        workload: Default::default(),
        before: place.kernel,
        after: place.kernel,
        unlisted: place.unlisted.clone(),
        is_torn: false,
    };
    Taken {
        by: "what was listed".into(),
        took: begun.elapsed(),
        cpu: crate::observe::census::cpu_time(),
        strayed: 0,
        kernel: bundle.places.iter().map(kernel).collect(),
        counted: bundle.census.clone(),
        notes: bundle.notes.clone(),
    }
}

/// Reads all pieces of it: of a folder, an archive, one file, or standard input.
fn read(path: &Path, reader: Reader) -> Result<Bundle> {
    let mut reader = reader.read_at(jiff::Timestamp::now());
    let unpacked = Opened::open(path)?.unpack(UnpackLimits::default(), &mut |name, text| {
        let name = if name == "-" { "standard input" } else { name };
        if let Err(error) = reader.piece(name, text) {
            aside::say(&format!("cannot read all of {name}: {error}"));
        }
        Ok(())
    })?;
    let mut bundle = reader.finish();
    if bundle.pieces.is_empty() {
        let notes = unpacked.notes().join("; ");
        bail!(
            "nothing in {} is known here: what conntrack, sysctl, nft, iptables-save, lsmod or dmesg \
             printed is, by itself, in a folder or in an archive, and recordings of ctwatch are{}{notes}",
            path.display(),
            if notes.is_empty() { "" } else { "; " },
        );
    }
    bundle.notes.extend(unpacked.notes());
    Ok(bundle)
}

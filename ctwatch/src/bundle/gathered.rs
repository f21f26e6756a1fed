//! What the pieces said so far, namespace by namespace, not yet interpreted.

use std::collections::BTreeMap;

use ctwatch_abi::{
    NetnsId,
    top::{By, Seed},
};

use super::{kind::Printed, lines, outcome::Misread};
use crate::{
    host::{self, machine::evidence},
    model::census::Census,
    record::{
        counters::CpuCounters,
        facts::{
            Allowance, Barred, Facts, Framework, Hook, KernelLog, LoadedModule, RuleTable, Setting,
            Slab,
        },
    },
};

/// The most lines that were not understood and are shown; the others are counted.
const MOST_MISREAD: usize = 50;
/// A bundle of a Kubernetes node has some hundreds.
const MOST_NAMESPACES: usize = 4096;
/// Sysctls of one namespace that are kept, and how long a value may be.
const MOST_SYSCTLS: usize = 1024;
const LONGEST_VALUE: usize = 256;
const MOST_MODULES: usize = 8192;
const MOST_NOTES: usize = 20;

/// The kernel's log, as several pieces may hold it.
#[derive(Debug, Default)]
pub(super) struct Logged {
    /// The log of the piece that says most.
    pub(super) kernel: Option<KernelLog>,
    /// When the bundle is read: no line was written later.
    pub(super) now: Option<jiff::Timestamp>,
}

/// Which families the command was asked to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Families {
    /// No option says it. Old versions of conntrack may list IPv4 alone then.
    #[default]
    Unknown,
    Ipv4,
    Ipv6,
    Both,
}

impl Families {
    /// `of`: the command, or the path.
    pub(super) fn of(of: &str) -> Self {
        // sos writes `_` for each space in the names of its files.
        let mut words = of.split([' ', '_', '=']);
        while let Some(word) = words.next() {
            if matches!(word, "-f" | "--family") {
                return match words.next() {
                    Some("ipv4") => Self::Ipv4,
                    Some("ipv6") => Self::Ipv6,
                    _ => Self::Unknown,
                };
            }
        }
        match of.rsplit('/').next() {
            Some("nf_conntrack") => Self::Both,
            Some("ip_conntrack") => Self::Ipv4,
            _ => Self::Unknown,
        }
    }

    /// This version of conntrack lists both families unless it is asked for one.
    pub(super) fn assume_all(&mut self) {
        if *self == Self::Unknown {
            *self = Self::Both;
        }
    }
}

/// Entries of one family in a list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FamilyList {
    /// The number by which the census knows them.
    pub(super) netns: NetnsId,
    pub(super) entries: u64,
}

/// A list of entries. Each family is counted apart: another list may hold more of one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct EntryList {
    pub(super) piece: String,
    pub(super) ipv4: FamilyList,
    pub(super) ipv6: FamilyList,
    pub(super) families: Families,
    /// How many of its lines were not understood.
    pub(super) lost: u64,
    /// How many entries conntrack says that it listed.
    pub(super) said: Option<u64>,
    /// The command selected some of the entries.
    pub(super) is_part: bool,
}

impl EntryList {
    pub(super) fn entries(&self) -> u64 {
        self.ipv4.entries + self.ipv6.entries
    }
}

/// A table of iptables, and by which backend it was printed.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// `None`: the text does not say which.
    pub(super) backend: Option<Framework>,
    pub(super) table: RuleTable,
}

/// What was gathered of one namespace.
#[derive(Debug, Default)]
pub(super) struct Within {
    pub(super) name: Option<String>,
    pub(super) sysctls: BTreeMap<String, String>,
    /// Lines of `sysctl -a`, those that are not kept included.
    pub(super) sysctl_lines: u64,
    pub(super) lists: Vec<EntryList>,
    pub(super) counters: Vec<(String, Vec<CpuCounters>)>,
    /// By `/proc/net/stat/nf_conntrack`.
    pub(super) entries: Option<u32>,
    pub(super) expectations: Option<u32>,
    pub(super) nft: Option<Vec<RuleTable>>,
    pub(super) saved: Vec<Saved>,
    /// By `iptables -nvL`, which tells less than `iptables-save`.
    pub(super) listed: Vec<Saved>,
    /// Backends of which all tables were printed, even if there are none.
    pub(super) whole: Vec<Framework>,
    pub(super) hooks: Option<Vec<Hook>>,
    pub(super) allowances: Vec<Allowance>,
}

pub(super) struct BundleParts {
    pub(super) census: Census,
    pub(super) most: usize,
    next_list: NetnsId,
    within: Vec<Within>,
    pub(super) modules: Option<Vec<LoadedModule>>,
    /// `modules` lists all that are loaded.
    pub(super) has_all_modules: bool,
    pub(super) slab: Option<Slab>,
    pub(super) memory: Option<u64>,
    pub(super) log: Logged,
    pub(super) release: Option<String>,
    pub(super) host: Option<String>,
    pub(super) time: Option<String>,
    pub(super) settings: Vec<Setting>,
    pub(super) barred: Vec<Barred>,
    /// Files of sysctl.d were among the pieces, or were searched.
    pub(super) has_settings: bool,
    pub(super) hashsize: Option<u32>,
    pub(super) bridges: Option<u32>,
    /// iptables sees packets that only cross a bridge.
    pub(super) are_bridges_tracked: bool,
    pub(super) files: Vec<String>,
    pub(super) processes: Vec<String>,
    pub(super) services: Vec<String>,
    pub(super) has_systemd: bool,
    /// The facts in an archive of `ctwatch collect`.
    pub(super) collected: Option<Box<Facts>>,
    pub(super) pieces: BTreeMap<Printed, u64>,
    pub(super) unknown_pieces: u64,
    pub(super) misread: Vec<Misread>,
    pub(super) more_misread: u64,
    notes: Vec<String>,
}

impl BundleParts {
    pub(super) fn new(by: &[By], most: usize) -> Self {
        Self {
            census: Census::new(by, Seed(host::secrets())),
            most,
            next_list: 1,
            within: vec![Within::default()],
            modules: None,
            has_all_modules: false,
            slab: None,
            memory: None,
            log: Logged::default(),
            release: None,
            host: None,
            time: None,
            settings: Vec::new(),
            barred: Vec::new(),
            has_settings: false,
            hashsize: None,
            bridges: None,
            are_bridges_tracked: false,
            files: Vec::new(),
            processes: Vec::new(),
            services: Vec::new(),
            has_systemd: false,
            collected: None,
            pieces: BTreeMap::new(),
            unknown_pieces: 0,
            misread: Vec::new(),
            more_misread: 0,
            notes: Vec::new(),
        }
    }

    /// The place of the namespace of this name; `None` is the one in which the commands were typed. Beyond
    /// the bound there is no place.
    fn at(&mut self, name: Option<&str>) -> Option<usize> {
        let found = self.within.iter().position(|within| within.name.as_deref() == name);
        if found.is_some() {
            return found;
        }
        if self.within.len() >= MOST_NAMESPACES {
            self.note(format!(
                "namespaces beyond the first {MOST_NAMESPACES} were not looked into"
            ));
            return None;
        }
        self.within.push(Within { name: name.map(str::to_owned), ..Within::default() });
        Some(self.within.len() - 1)
    }

    pub(super) fn within(&mut self, name: Option<&str>) -> Option<&mut Within> {
        let at = self.at(name)?;
        self.within.get_mut(at)
    }

    pub(super) fn take_within(&mut self) -> Vec<Within> {
        std::mem::take(&mut self.within)
    }

    /// Remembers files that show who manages the firewall.
    pub(super) fn evidence_of(&mut self, piece: &str) {
        for path in evidence::FILES {
            let inner = path.trim_start_matches('/');
            let is_it = piece.match_indices(inner).any(|(at, _)| {
                let before = at == 0 || piece.as_bytes().get(at - 1) == Some(&b'/');
                let behind = piece.as_bytes().get(at + inner.len());
                before && matches!(behind, None | Some(b'/'))
            });
            if is_it && !self.files.iter().any(|file| file == path) {
                self.files.push(path.to_owned());
            }
        }
        self.has_systemd |= piece.contains("sos_commands/systemd/");
    }

    pub(super) fn count(&mut self, kind: Printed) {
        if !matches!(kind, Printed::Unknown | Printed::Other) {
            *self.pieces.entry(kind).or_default() += 1;
        }
    }

    pub(super) fn note(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// A new number for entries in the census.
    pub(super) fn new_list(&mut self) -> NetnsId {
        self.next_list += 1;
        self.next_list - 1
    }

    pub(super) fn list(&mut self, namespace: Option<&str>, list: EntryList) {
        // An empty list is an answer if one family was asked for: there is none of it.
        let is_asked = matches!(list.families, Families::Ipv4 | Families::Ipv6);
        if list.entries() == 0 && list.lost == 0 && list.said.is_none() && !is_asked {
            return;
        }
        if let Some(within) = self.within(namespace) {
            within.lists.push(list);
        }
    }

    pub(super) fn sysctl(&mut self, namespace: Option<&str>, name: &str, value: &str) {
        let Some(within) = self.within(namespace) else { return };
        within.sysctl_lines += 1;
        let is_wanted = name.starts_with("net.netfilter.nf_")
            || name.starts_with("net.bridge.bridge-nf-")
            || matches!(name, "net.nf_conntrack_max" | "kernel.hostname" | "kernel.osrelease");
        if is_wanted && within.sysctls.len() < MOST_SYSCTLS && value.len() <= LONGEST_VALUE {
            within.sysctls.insert(name.to_owned(), value.to_owned());
        }
    }

    pub(super) fn module(&mut self, module: LoadedModule) {
        let modules = self.modules.get_or_insert_default();
        if modules.len() < MOST_MODULES && modules.iter().all(|known| known.name != module.name) {
            modules.push(module);
        }
    }

    pub(super) fn nft(&mut self, namespace: Option<String>, tables: Vec<RuleTable>) {
        let Some(within) = self.within(namespace.as_deref()) else { return };
        // The ruleset may be there as text and as JSON: the one with more rules is kept.
        let rules = |tables: &[RuleTable]| tables.iter().map(|table| table.rules).sum::<u64>();
        if within.nft.as_ref().is_none_or(|known| rules(known) <= rules(&tables)) {
            within.nft = Some(tables);
        }
    }

    pub(super) fn saved(&mut self, namespace: Option<&str>, saved: Saved, is_list: bool) {
        const MOST_TABLES: usize = 64;
        let Some(within) = self.within(namespace) else { return };
        let all = if is_list { &mut within.listed } else { &mut within.saved };
        let is_it = |known: &Saved| {
            (&known.table.family, &known.table.name) == (&saved.table.family, &saved.table.name)
                && known.backend == saved.backend
        };
        match all.iter().position(is_it) {
            Some(at) if all[at].table.rules <= saved.table.rules => all[at] = saved,
            Some(_) => {}
            None if all.len() < MOST_TABLES => all.push(saved),
            None => {}
        }
    }

    pub(super) fn misread(
        &mut self,
        piece: &str,
        line: u64,
        text: &[u8],
        why: Option<&'static str>,
    ) {
        if self.misread.len() >= MOST_MISREAD {
            self.more_misread += 1;
            return;
        }
        let text = lines::cut(text);
        self.misread.push(Misread { piece: piece.to_owned(), line, text, why });
    }
}

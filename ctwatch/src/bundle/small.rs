//! Short outputs: counters, settings, modules, memory, and files with one value.

use std::io::{BufRead, Read};

use super::{
    gathered::BundleParts,
    kind::{self, Printed, Why},
    prompt,
};
use crate::{
    host::{kernel::settings, machine::evidence, netfilter::procstat},
    record::{
        counters::CpuCounters,
        facts::{Allowance, Facts, Hook},
    },
};

/// No machine has more CPUs.
const MOST_CPUS: usize = 8192;

/// Takes in a line of a kind that is read line by line. `of` is the command or the path.
pub(super) fn take(
    kind: Printed,
    line: &str,
    (of, namespace, piece): (&str, Option<&str>, &str),
    gathered: &mut BundleParts,
) -> Result<(), Why> {
    match kind {
        Printed::Sysctl => sysctl(line, namespace, gathered),
        Printed::Value => value(line, of, namespace, gathered),
        Printed::SysctlFile => {
            let (file, line) = of_grep(of, line);
            let all = settings::settings(&file.unwrap_or_else(|| path_of(of, piece)), line);
            gathered.settings.extend(all.into_iter().take(1));
            Ok(())
        }
        Printed::ModprobeFile => {
            let (file, line) = of_grep(of, line);
            let file = file.unwrap_or_else(|| path_of(of, piece));
            gathered.barred.extend(settings::installs(&file, line));
            Ok(())
        }
        Printed::Modules => module(line, of, gathered),
        Printed::Slab => slab(line, gathered),
        Printed::Memory => memory(line, gathered),
        Printed::Machine => machine(line, gathered),
        Printed::Date => date(line, gathered),
        Printed::Links => links(line, of, namespace, gathered),
        Printed::Processes => among(line, &evidence::PROCESSES, &mut gathered.processes),
        Printed::Services => {
            if line.contains("enabled") {
                return among(line, &evidence::SERVICES, &mut gathered.services);
            }
            Ok(())
        }
        _ => Err(None),
    }
}

/// `/etc/sysctl.d/90-x.conf:net.netfilter.nf_conntrack_max = 9` of `grep -r`: the file, and its line.
fn of_grep<'a>(of: &str, line: &'a str) -> (Option<String>, &'a str) {
    let named = line.split_once(':').filter(|(file, _)| {
        of.contains("grep") && file.starts_with('/') && !file.contains(char::is_whitespace)
    });
    named.map_or((None, line), |(file, line)| (Some(file.to_owned()), line))
}

/// `/etc/sysctl.d/90-x.conf` of `sosreport-sw1/etc/sysctl.d/90-x.conf`, or of `cat /etc/sysctl.d/90-x.conf`.
fn path_of(of: &str, piece: &str) -> String {
    const ROOTS: [&str; 4] = ["etc/", "usr/lib/", "run/", "lib/"];
    let typed = of.split_whitespace().skip(1).find(|word| Printed::of_file(word).is_some());
    let piece = typed.unwrap_or(piece);
    let at = ROOTS.iter().filter_map(|root| {
        let at = piece.find(root)?;
        (at == 0 || piece.as_bytes().get(at - 1) == Some(&b'/')).then_some(at)
    });
    at.min().map_or_else(|| piece.to_owned(), |at| format!("/{}", &piece[at..]))
}

fn sysctl(line: &str, namespace: Option<&str>, gathered: &mut BundleParts) -> Result<(), Why> {
    // Its errors come to the same terminal.
    if line.starts_with("sysctl: ") {
        return Ok(());
    }
    let (name, value) = line.split_once('=').ok_or(None)?;
    let name = name.trim();
    let is_name =
        !name.is_empty() && name.contains(['.', '/']) && !name.contains(char::is_whitespace);
    if !is_name {
        return Err(None);
    }
    let value = value.trim();
    let name = name.replace('/', ".");
    if name.starts_with("net.netfilter.nf_conntrack_") && value.split_whitespace().count() != 1 {
        return Err(Some("it is not one value"));
    }
    gathered.sysctl(namespace, &name, value);
    if let ("kernel.hostname", None) = (name.as_str(), namespace) {
        gathered.host = Some(value.to_owned());
    }
    if name == "kernel.osrelease" {
        gathered.release = Some(value.to_owned());
    }
    Ok(())
}

/// A file with one number: the path or the command tells what it means.
fn value(
    line: &str,
    of: &str,
    namespace: Option<&str>,
    gathered: &mut BundleParts,
) -> Result<(), Why> {
    let number: u64 = line.trim().parse().map_err(|_| None)?;
    if of.contains("hashsize") {
        gathered.hashsize = u32::try_from(number).ok();
        return Ok(());
    }
    let name = match of.split_once("proc/sys/") {
        Some((_, path)) => path.split_whitespace().next().unwrap_or_default().replace('/', "."),
        None if of.contains("conntrack") => "net.netfilter.nf_conntrack_count".to_owned(),
        None => return Err(None),
    };
    gathered.sysctl(namespace, &name, &number.to_string());
    Ok(())
}

fn module(line: &str, of: &str, gathered: &mut BundleParts) -> Result<(), Why> {
    // A part of the list does not tell which modules are not loaded.
    let is_whole = Printed::by(of) == Printed::Modules && !kind::is_filtered(of)
        || Printed::of_file(of) == Some(Printed::Modules)
        || line.ends_with("0x0000000000000000");
    gathered.has_all_modules |= is_whole;
    if line.starts_with("Module ") && line.contains("Used by") {
        gathered.modules.get_or_insert_default();
        gathered.has_all_modules = true;
        return Ok(());
    }
    let mut numbers = line.split_whitespace().skip(1);
    let is_number = |word: Option<&str>| word.is_some_and(|word| word.parse::<i64>().is_ok());
    if !is_number(numbers.next()) || !is_number(numbers.next()) {
        return Err(None);
    }
    // /proc/modules has a dash where no module uses it; lsmod leaves the column empty.
    let module = settings::modules_of(&format!("{line} -")).pop().ok_or(None)?;
    gathered.module(module);
    Ok(())
}

fn slab(line: &str, gathered: &mut BundleParts) -> Result<(), Why> {
    if line.starts_with("slabinfo") || line.starts_with('#') {
        return Ok(());
    }
    if !line.contains(" : ") && line.split_whitespace().count() < 4 {
        return Err(None);
    }
    if let Some(more) = settings::slab_of(line) {
        let slab = gathered.slab.get_or_insert(crate::record::facts::Slab { objects: 0, ..more });
        slab.objects = slab.objects.saturating_add(more.objects);
    }
    Ok(())
}

fn memory(line: &str, gathered: &mut BundleParts) -> Result<(), Why> {
    if !line.contains(':') || line.contains('=') {
        return Err(None);
    }
    if let Some(bytes) = settings::memory_of(line) {
        gathered.memory = Some(bytes);
    }
    Ok(())
}

/// `Linux version 6.1.0 (…)`, `Linux sw1 6.1.0 #1 SMP …`
fn machine(line: &str, gathered: &mut BundleParts) -> Result<(), Why> {
    let mut words = line.split_whitespace();
    let (Some("Linux"), Some(second), Some(third)) = (words.next(), words.next(), words.next())
    else {
        return Err(None);
    };
    let is_release = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.') && word.len() < 64
    };
    if !is_release(third) {
        return Err(None);
    }
    gathered.release = Some(third.to_owned());
    if second != "version" {
        gathered.host = Some(second.to_owned());
    }
    Ok(())
}

/// Counts bridges: `ip -d link` prints a line that only bridges have, and in `ip link show type bridge` each line
/// that is not indented is one.
fn links(
    line: &str,
    of: &str,
    namespace: Option<&str>,
    gathered: &mut BundleParts,
) -> Result<(), Why> {
    let is_detailed = of.contains("-d");
    let is_bridge = match of.contains("type bridge") {
        true => !line.starts_with(char::is_whitespace),
        false => line.trim_start().starts_with("bridge forward_delay"),
    };
    if prompt::command(line.as_bytes(), Printed::Links).is_some()
        || Printed::of_line(line.as_bytes()).is_some()
    {
        return Err(None);
    }
    if namespace.is_none() && (is_detailed || of.contains("type bridge")) {
        *gathered.bridges.get_or_insert(0) += u32::from(is_bridge);
    }
    Ok(())
}

/// `Thu Nov 26 03:00:00 UTC 2026`, in whatever language.
fn date(line: &str, gathered: &mut BundleParts) -> Result<(), Why> {
    const LONGEST: usize = 60;
    let line = line.trim();
    let has_time = line.split([' ', 'T']).any(|word| word.split(':').count() >= 3);
    if !has_time || line.len() > LONGEST {
        return Err(None);
    }
    gathered.time = Some(line.to_owned());
    Ok(())
}

/// Remembers the wanted names that stand in the line.
fn among(line: &str, wanted: &[&str], found: &mut Vec<String>) -> Result<(), Why> {
    if prompt::command(line.as_bytes(), Printed::Processes).is_some() {
        return Err(None);
    }
    for word in line.split_whitespace() {
        let name = word.rsplit('/').next().unwrap_or(word).trim_end_matches(':');
        if let Some(name) = wanted.iter().find(|wanted| **wanted == name)
            && !found.iter().any(|known| known == name)
        {
            found.push((*name).to_owned());
        }
    }
    if Printed::of_line(line.as_bytes()).is_some_and(|kind| {
        !matches!(kind, Printed::Processes | Printed::Services | Printed::Modules | Printed::Log)
    }) {
        return Err(None);
    }
    Ok(())
}

/// The facts of an archive of `ctwatch collect`, as JSON.
pub(super) fn facts(text: &mut dyn BufRead) -> Option<Box<Facts>> {
    const MOST: u64 = 64 << 20;
    serde_json::from_reader(text.take(MOST)).ok()
}

/// `conntrack -S`, and `/proc/net/stat/nf_conntrack`.
#[derive(Default)]
pub(super) struct CountersPart {
    cpus: Vec<CpuCounters>,
    header: Option<Vec<String>>,
    entries: Option<u32>,
}

impl CountersPart {
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), Why> {
        let line = std::str::from_utf8(line).map_err(|_| None)?;
        if self.cpus.len() >= MOST_CPUS {
            return Err(Some("more CPUs than any machine has"));
        }
        if line.starts_with("cpu=") {
            self.cpus.push(per_cpu(line)?);
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"entries") && words.contains(&"drop") {
            self.header = Some(words.into_iter().map(str::to_owned).collect());
            self.cpus.clear();
            return Ok(());
        }
        let header = self.header.as_ref().ok_or(None)?;
        if !words.iter().all(|word| word.bytes().all(|b| b.is_ascii_hexdigit())) || words.is_empty()
        {
            return Err(None);
        }
        if words.len() != header.len() {
            return Err(Some("as many numbers as columns are expected"));
        }
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let counters = procstat::row(&header, self.cpus.len(), line).map_err(|_| None)?;
        if let Some(at) = header.iter().position(|name| *name == "entries") {
            self.entries = u32::from_str_radix(words[at], 16).ok();
        }
        self.cpus.push(counters);
        Ok(())
    }

    pub(super) fn finish(self, namespace: Option<&str>, piece: &str, gathered: &mut BundleParts) {
        const MOST_READINGS: usize = 8;
        let Some(within) = gathered.within(namespace) else { return };
        within.entries = self.entries.or(within.entries);
        if !self.cpus.is_empty() && within.counters.len() < MOST_READINGS {
            within.counters.push((piece.to_owned(), self.cpus));
        }
    }
}

/// `cpu=0    found=0 invalid=3 insert=0 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0`
/// <https://git.netfilter.org/conntrack-tools/tree/src/conntrack.c> `nfct_stats_attr_cb`
fn per_cpu(line: &str) -> Result<CpuCounters, Why> {
    let mut cpu = CpuCounters::default();
    let mut has_drop = false;
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or(Some("a word that is no counter"))?;
        let value: u32 = value.parse().map_err(|_| Some("a counter that is no number"))?;
        match name {
            "cpu" => cpu.cpu = u16::try_from(value).map_err(|_| Some("no number of a CPU"))?,
            "found" => cpu.found = value,
            "invalid" => cpu.invalid = value,
            "insert" => cpu.insert = value,
            "delete_list" => cpu.delete_list = Some(value),
            "insert_failed" => cpu.insert_failed = value,
            "drop" => (cpu.drop, has_drop) = (value, true),
            "early_drop" => cpu.early_drop = value,
            "error" => cpu.error = value,
            "search_restart" => cpu.search_restart = value,
            "clash_resolve" => cpu.clash_resolve = value,
            "chaintoolong" | "chainlength" => cpu.chaintoolong = Some(value),
            _ => {}
        }
    }
    if has_drop { Ok(cpu) } else { Err(Some("it is cut off")) }
}

/// `ethtool -S`: counters of what a cloud's network drops.
pub(super) struct AdapterPart {
    interface: String,
    exceeded: Option<u64>,
    available: Option<u64>,
}

impl AdapterPart {
    /// `ethtool -S ens5`, `sos_commands/networking/ethtool_-S_ens5`
    pub(super) fn of(of: &str) -> Self {
        let interface = of.rsplit([' ', '/', '_']).next().unwrap_or(of).to_owned();
        Self { interface, exceeded: None, available: None }
    }

    pub(super) fn take(&mut self, line: &str) -> Result<(), Why> {
        if line.starts_with("NIC statistics:") || line == "no stats available" {
            return Ok(());
        }
        let (name, value) = line.trim().rsplit_once(": ").ok_or(None)?;
        let value: u64 = value.trim().parse().map_err(|_| None)?;
        match name.trim() {
            "conntrack_allowance_exceeded" => self.exceeded = Some(value),
            "conntrack_allowance_available" => self.available = Some(value),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn finish(self, namespace: Option<&str>, gathered: &mut BundleParts) {
        const MOST: usize = 1024;
        let Self { interface, exceeded: Some(exceeded), available } = self else { return };
        if let Some(within) = gathered.within(namespace).filter(|w| w.allowances.len() < MOST) {
            within.allowances.retain(|known| known.interface != interface);
            within.allowances.push(Allowance { interface, exceeded, available });
        }
    }
}

/// `nft list hooks`
#[derive(Default)]
pub(super) struct HooksPart {
    family: String,
    hook: String,
    hooks: Vec<Hook>,
    has_any: bool,
}

impl HooksPart {
    pub(super) fn take(&mut self, line: &str) -> Result<(), Why> {
        const MOST: usize = 10_000;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["family", family, "{"] => self.family = (*family).to_owned(),
            ["hook", hook, ..] => self.hook = (*hook).to_owned(),
            ["}"] | [] => {}
            [priority, rest @ ..] => {
                let priority: i32 = priority.trim_start_matches('+').parse().map_err(|_| None)?;
                let module = rest.last().filter(|word| word.starts_with('['));
                let function = rest.first().filter(|word| !word.starts_with("chain"));
                if self.hooks.len() < MOST {
                    self.hooks.push(Hook {
                        family: self.family.clone().into(),
                        hook: self.hook.clone().into(),
                        priority,
                        function: function.map_or_else(String::new, |name| (*name).to_owned()),
                        module: module.map(|name| name.trim_matches(['[', ']']).to_owned()),
                    });
                }
            }
        }
        self.has_any = true;
        Ok(())
    }

    pub(super) fn finish(self, namespace: Option<&str>, gathered: &mut BundleParts) {
        if self.has_any
            && let Some(within) = gathered.within(namespace)
        {
            within.hooks = Some(self.hooks);
        }
    }
}

/// Whether iptables has a table of this name.
pub(super) fn is_table(name: &str) -> bool {
    kind::is_table_of_iptables(name.as_bytes())
}

/// The backend, by the header of `iptables-save`. Before 1.8 there was only one.
pub(super) fn backend_of(header: &str) -> Option<crate::record::facts::Framework> {
    use crate::record::facts::Framework::{Legacy, Nft};
    if header.contains("(nf_tables)")
        || header.contains("tables-nft")
        || header.contains("xtables-save")
    {
        return Some(Nft);
    }
    if header.contains("(legacy)") || header.contains("tables-legacy") {
        return Some(Legacy);
    }
    let (_, version) = header.split_once("-save v")?;
    let mut numbers = version.split(['.', ' ']).map(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    ((major, minor) < (1, 8)).then_some(Legacy)
}

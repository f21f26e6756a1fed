//! What is of the whole machine: short files of /proc, and what the kernel's log says of conntrack.

use std::collections::BTreeMap;

use crate::{
    host::{
        self,
        kernel::{kmsg, modules},
        machine::files,
    },
    record::facts::{Facts, Known},
};

const MODULES: &str = "/proc/modules";
/// Namespaces that are named for one reason.
const NAMED: usize = 5;
/// Lines of the kernel's log.
const LOGGED: usize = 1000;

/// A file of the archive, or why it is not there.
pub type Named = (String, Known<String>);

/// What reads one of them. A disk or a driver may not answer: each is read on a thread of its own.
pub type Read = Box<dyn FnOnce() -> Known<String> + Send>;

pub fn pieces() -> Vec<(String, Read)> {
    let mut pieces: Vec<(String, Read)> = Vec::new();
    let mut add = |name: &str, read: Read| pieces.push((name.to_owned(), read));
    for path in [MODULES, "/proc/meminfo", "/proc/uptime", "/proc/version"] {
        // A kernel without modules has no such file.
        if path != MODULES || modules::can_be_loaded() {
            add(path.trim_start_matches('/'), Box::new(move || text(path)));
        }
    }
    add("proc/slabinfo", Box::new(slabs));
    add(
        "sos_commands/kernel/dmesg",
        Box::new(|| {
            kmsg::lines(LOGGED).map(|lines| lines.iter().flat_map(|l| [l, "\n"]).collect())
        }),
    );
    add("sos_commands/kernel/uname_-a", Box::new(|| Ok(uname())));
    add(
        "sos_commands/host/hostname",
        Box::new(|| host::name().map(|name| format!("{name}\n")).ok_or("it has none".to_owned())),
    );
    let now = || jiff::Zoned::now().strftime("%a %b %e %H:%M:%S %Z %Y\n").to_string();
    add("sos_commands/date/date", Box::new(move || Ok(now())));
    pieces
}

fn text(path: &str) -> Known<String> {
    files::text(path).map_err(|why| format!("cannot read {path}: {why}"))
}

fn slabs() -> Known<String> {
    let is_wanted = |line: &&str| {
        line.starts_with('#') || line.starts_with("slabinfo") || line.contains("conntrack")
    };
    let text = text("/proc/slabinfo")?;
    Ok(text.lines().filter(is_wanted).flat_map(|line| [line, "\n"]).collect())
}

fn uname() -> String {
    let name = rustix::system::uname();
    let part = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let words = [name.sysname(), name.nodename(), name.release(), name.version(), name.machine()];
    format!("{} GNU/Linux\n", words.map(part).join(" "))
}

/// The lines about conntrack of the files that are read at boot.
pub fn settings(facts: &Facts) -> Vec<Named> {
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for setting in &facts.settings {
        let text = files
            .entry(&setting.file)
            .or_insert_with(|| "# only the lines about connection tracking\n".to_owned());
        text.push_str(&format!("net.netfilter.{} = {}\n", setting.name, setting.value));
    }
    let named = |(path, text): (&str, String)| (path.trim_start_matches('/').to_owned(), Ok(text));
    files.into_iter().map(named).collect()
}

/// What could not be found out, and why; of namespaces for which the reason is the same, together.
pub fn unknown(facts: &Facts) -> Vec<String> {
    fn why<T>(known: &Known<T>) -> Option<&String> {
        known.as_ref().err()
    }
    let whole = [
        ("modules", why(&facts.modules)),
        ("modules on disk", why(&facts.on_disk)),
        ("the limit", why(&facts.limit)),
        ("the number of buckets", why(&facts.buckets)),
        ("memory of entries", why(&facts.slab)),
        ("what the kernel's log says of full tables", why(&facts.log)),
    ];
    let mut unknown: Vec<String> =
        whole.iter().filter_map(|(what, why)| Some(format!("{what}: {}", (*why)?))).collect();
    let mut parts: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for namespace in &facts.namespaces {
        let of_it = [
            ("rules of nftables", why(&namespace.nft)),
            ("rules of iptables-legacy", why(&namespace.legacy)),
            ("what packets are hooked by", why(&namespace.hooks)),
            ("counters", why(&namespace.totals)),
        ];
        for (what, why) in of_it {
            let Some(why) = why else { continue };
            parts.entry((what, why)).or_default().push(namespace.called());
        }
    }
    unknown.extend(parts.into_iter().map(|((what, why), of)| {
        let more = of.len().saturating_sub(NAMED);
        let names = of.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what} of {names}{more}: {why}")
    }));
    unknown
}

/// Of the modules that are loaded, their names; `None`: that cannot be seen.
pub fn modules() -> Option<Vec<String>> {
    if !modules::can_be_loaded() {
        return Some(Vec::new());
    }
    let text = files::text(MODULES).ok()?;
    Some(text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
}

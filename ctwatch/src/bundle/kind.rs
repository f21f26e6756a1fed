//! Which command printed a piece, or a part of one: by the command's name, or by what the lines look like.

use super::place;

/// The command that printed a text, or the file that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Printed {
    /// Not known yet, or none of these.
    #[default]
    Unknown,
    Entries,
    /// Printed by a command whose output is not read here.
    Other,
    Date,
    /// `conntrack -E`: events, which are no table.
    Events,
    Expectations,
    Counters,
    CountersOfProc,
    /// `conntrack -C`, and files of `/proc/sys` and `/sys` with a single value.
    Value,
    Sysctl,
    SysctlFile,
    ModprobeFile,
    Modules,
    RulesSaved,
    RulesListed,
    Nft,
    NftJson,
    Hooks,
    Log,
    Slab,
    Memory,
    Sets,
    Sockets,
    Adapter,
    Machine,
    Links,
    Processes,
    Services,
    Facts,
}

/// Why a line was not understood; `None`: it is a line of another kind.
pub(super) type Why = Option<&'static str>;

impl Printed {
    /// The command that prints it, as a report lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown | Self::Other => "something else",
            Self::Date => "date",
            Self::Entries => "conntrack -L",
            Self::Events => "conntrack -E",
            Self::Expectations => "conntrack -L expect",
            Self::Counters => "conntrack -S",
            Self::CountersOfProc => "/proc/net/stat/nf_conntrack",
            Self::Value => "a file with one value",
            Self::Sysctl => "sysctl -a",
            Self::SysctlFile => "a file of sysctl.d",
            Self::ModprobeFile => "a file of modprobe.d",
            Self::Modules => "lsmod",
            Self::RulesSaved => "iptables-save",
            Self::RulesListed => "iptables -nvL",
            Self::Nft => "nft list ruleset",
            Self::NftJson => "nft -j list ruleset",
            Self::Hooks => "nft list hooks",
            Self::Log => "dmesg",
            Self::Slab => "/proc/slabinfo",
            Self::Memory => "/proc/meminfo",
            Self::Sets => "ipset list",
            Self::Sockets => "ss -s",
            Self::Adapter => "ethtool -S",
            Self::Machine => "uname -a",
            Self::Links => "ip -d link",
            Self::Processes => "ps",
            Self::Services => "systemctl list-unit-files",
            Self::Facts => "ctwatch collect",
        }
    }

    /// By the command that was typed; `sudo` and the like before it are passed over.
    pub(super) fn by(command: &str) -> Self {
        if Self::is_part_of_rules(command) { Self::Other } else { Self::by_program(command) }
    }

    /// A part of the rules is not read: it would be taken for all of them.
    pub(super) fn is_part_of_rules(command: &str) -> bool {
        let kind = Self::by_program(command);
        matches!(kind, Self::Nft | Self::NftJson | Self::RulesSaved | Self::RulesListed)
            && is_filtered(command)
    }

    fn by_program(command: &str) -> Self {
        let (_, command) = place::of_command(command);
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let has = |word: &str| rest.contains(&word);
        match program {
            "conntrack" if has("expect") => Self::Expectations,
            "conntrack" if has("-S") || has("--stats") => Self::Counters,
            "conntrack" if has("-C") || has("--count") => Self::Value,
            "conntrack" if has("-E") || has("--event") => Self::Events,
            "conntrack" if has("-L") || has("--dump") => Self::Entries,
            "sysctl" if has("-n") => Self::Unknown,
            "sysctl" => Self::Sysctl,
            "lsmod" => Self::Modules,
            "dmesg" | "journalctl" => Self::Log,
            "ipset" => Self::Sets,
            "ss" if has("-s") => Self::Sockets,
            "ethtool" if has("-S") => Self::Adapter,
            "uname" => Self::Machine,
            "ip" if rest.iter().any(|word| matches!(*word, "link" | "l")) => Self::Links,
            "ps" => Self::Processes,
            "date" => Self::Date,
            "systemctl" => Self::Services,
            "nft" if has("hooks") => Self::Hooks,
            "nft" if has("-j") || has("-ja") || has("-aj") => Self::NftJson,
            "nft" => Self::Nft,
            "iptables-save" | "ip6tables-save" => Self::RulesSaved,
            name if name.starts_with("ip") && name.ends_with("tables-save") => Self::RulesSaved,
            name if is_saver(name) => Self::RulesSaved,
            name if is_iptables(name) && rest.iter().any(|word| lists_as(word, 'S')) => {
                Self::RulesSaved
            }
            name if is_iptables(name) && rest.iter().any(|word| lists_as(word, 'L')) => {
                Self::RulesListed
            }
            "cat" | "head" | "tail" | "more" | "less" => {
                rest.iter().find_map(|file| Self::of_file(file)).unwrap_or_default()
            }
            // The output of grep is a part of a file, which is of use only for settings.
            "grep" | "egrep" | "zgrep" => {
                let of_file = rest.iter().find_map(|file| Self::of_file(file));
                of_file.filter(|kind| kind.is_settings()).unwrap_or_default()
            }
            _ => Self::Unknown,
        }
    }

    /// A file of /etc tells what is configured, not what is in force: nftables.conf looks like the output of
    /// `nft list ruleset`.
    pub(super) fn is_configuration(name: &str) -> bool {
        name.split('/').any(|part| part == "etc")
            && !Self::of_file(name).is_some_and(Self::is_settings)
    }

    /// Each line is a whole setting, so a part of the file is still useful.
    fn is_settings(self) -> bool {
        matches!(self, Self::SysctlFile | Self::ModprobeFile)
    }

    /// By the path of a file, for files that cannot be told by their content.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        let is = |end: &str| name.ends_with(end);
        let within = |part: &str| name.contains(part);
        if within("proc/sys/net/") || is("sys/module/nf_conntrack/parameters/hashsize") {
            return Some(Self::Value);
        }
        if within("etc/modprobe.d/") || within("lib/modprobe.d/") {
            return Some(Self::ModprobeFile);
        }
        if within("etc/sysctl") || within("lib/sysctl.d/") || within("run/sysctl.d/") {
            return Some(Self::SysctlFile);
        }
        let file = name.rsplit('/').next().unwrap_or(name);
        match file {
            "sysctl.conf" => Some(Self::SysctlFile),
            "nf_conntrack" | "ip_conntrack" if within("stat") => Some(Self::CountersOfProc),
            "nf_conntrack" | "ip_conntrack" => Some(Self::Entries),
            "nf_conntrack_expect" => Some(Self::Expectations),
            "date" => Some(Self::Date),
            name if name.starts_with("ip_") && name.ends_with("link") => Some(Self::Links),
            "slabinfo" => Some(Self::Slab),
            "meminfo" => Some(Self::Memory),
            "modules" if within("proc") => Some(Self::Modules),
            _ => None,
        }
    }

    /// By what a line looks like, if that is certain.
    pub(super) fn of_line(line: &[u8]) -> Option<Self> {
        let begins = |start: &str| line.starts_with(start.as_bytes());
        let text = |bytes: &[u8], what: &str| {
            bytes.windows(what.len()).any(|window| window == what.as_bytes())
        };
        // Some lines are long, and their begin is enough.
        let has = |what: &str| text(&line[..line.len().min(512)], what);
        let first = *line.first()?;
        match first {
            b'#' if begins("# Generated by ip") || begins("# Generated by xtables") => {
                Some(Self::RulesSaved)
            }
            b'#' if begins("# Warning: ") && has("is managed by iptables-nft") => Some(Self::Nft),
            b'#' if begins("# name ") && has("<active_objs>") => Some(Self::Slab),
            b'*' if is_table_of_iptables(&line[1..]) => Some(Self::RulesSaved),
            b'-' if begins("-- Logs begin")
                || begins("-- Journal begins")
                || begins("-- Boot ") =>
            {
                Some(Self::Log)
            }
            // `conntrack -L -o save`; the name of a chain does not begin with `-`.
            b'-' if begins("-A -") => Some(Self::Entries),
            b'-' if begins("-P ") || begins("-N ") || begins("-A ") => Some(Self::RulesSaved),
            b' ' | b'\t' if has("[NEW]") || has("[UPDATE]") || has("[DESTROY]") => {
                has("src=").then_some(Self::Events)
            }
            b' ' if begins(" pkts ") && has("target") => Some(Self::RulesListed),
            b'<' if begins("<conntrack>") || begins("<flow>") => Some(Self::Entries),
            b'<' if begins("<flow type=") => Some(Self::Events),
            b'[' | b'<' | b'{' => Self::of_bracket(line, &has),
            b'C' if begins("Chain ") && has("policy") | has("references)") => {
                Some(Self::RulesListed)
            }
            b'c' if begins("cpu=") => Some(Self::Counters),
            b'c' if begins("create ") && has(" hash:") | has(" bitmap:") | has(" list:set") => {
                Some(Self::Sets)
            }
            b'e' if begins("entries ") && has("drop") => Some(Self::CountersOfProc),
            b'f' if begins("family ") && has("{") => Some(Self::Hooks),
            b'L' if begins("Linux ") => Some(Self::Machine),
            b'M' if begins("Module ") && has("Used by") => Some(Self::Modules),
            b'M' if begins("MemTotal:") => Some(Self::Memory),
            b'N' if begins("NIC statistics:") => Some(Self::Adapter),
            b'N' if begins("Name: ") => Some(Self::Sets),
            b'T' if begins("Total: ") => Some(Self::Sockets),
            b's' if begins("slabinfo - version:") => Some(Self::Slab),
            b't' if begins("table ") && (line.trim_ascii_end().ends_with(b"{") || has("{ #")) => {
                Some(Self::Nft)
            }
            b'U' if begins("UNIT FILE ") => Some(Self::Services),
            b'U' | b'P' | b'F' if has(" PID ") && has("CMD") | has("COMMAND") => {
                Some(Self::Processes)
            }
            _ if first.is_ascii_digit() && has("proto=") && has("src=") => Some(Self::Expectations),
            _ if has(" src=") && has(" dst=") => Some(Self::Entries),
            // The trailer of `conntrack -L`, which may come before the entries.
            _ if has("(conntrack-tools): ") && has(" flow entries have been shown") => {
                Some(Self::Entries)
            }
            _ if is_sysctl(line) => Some(Self::Sysctl),
            _ if is_module(line) => Some(Self::Modules),
            _ if is_log(line, &has) => Some(Self::Log),
            _ => None,
        }
    }

    fn of_bracket(line: &[u8], has: &dyn Fn(&str) -> bool) -> Option<Self> {
        match line.first()? {
            b'{' if has("\"nftables\"") => Some(Self::NftJson),
            b'{' if has("\"__REALTIME_TIMESTAMP\"") || has("\"MESSAGE\"") => Some(Self::Log),
            b'{' => None,
            // `[12:345] -A FORWARD …` of iptables-save -c.
            b'[' if has("] -A ") => Some(Self::RulesSaved),
            b'[' if has("[NEW]") || has("[UPDATE]") || has("[DESTROY]") => Some(Self::Events),
            _ => is_stamped(line).then_some(Self::Log),
        }
    }
}

/// The command selects a part of its output: `conntrack -L | grep udp`, `conntrack -L -p udp`.
pub(super) fn is_filtered(command: &str) -> bool {
    const PASS_ALL: [&str; 5] = ["cat", "tee", "less", "more", "sort"];
    let mut parts = command.split('|');
    let first = parts.next().unwrap_or_default();
    let is_selecting = |word: &str| {
        matches!(word, "-p" | "-s" | "-d" | "-r" | "-q" | "-u" | "-m" | "-w" | "--src" | "--dst")
            || word.starts_with("--orig-")
            || word.starts_with("--reply-")
            || word.starts_with("--proto")
            || word.starts_with("--state")
    };
    let (_, program) = place::of_command(first);
    let program = program.split_whitespace().next().unwrap_or_default();
    let is_list = program.ends_with("conntrack") && first.split_whitespace().any(is_selecting);
    let is_cut = |part: &str| {
        let program = part.split_whitespace().next().unwrap_or_default();
        !PASS_ALL.contains(&program)
    };
    is_list || parts.any(is_cut)
}

fn is_iptables(program: &str) -> bool {
    const PROGRAMS: [&str; 6] = [
        "iptables",
        "ip6tables",
        "iptables-legacy",
        "ip6tables-legacy",
        "iptables-nft",
        "ip6tables-nft",
    ];
    PROGRAMS.contains(&program)
}

fn is_saver(program: &str) -> bool {
    program.strip_suffix("-save").is_some_and(is_iptables)
}

/// `-L`, also joined with other letters: `-nvL`.
fn lists_as(word: &str, letter: char) -> bool {
    word.strip_prefix('-').is_some_and(|word| !word.starts_with('-') && word.contains(letter))
        || matches!((word, letter), ("--list", 'L') | ("--list-rules", 'S'))
}

pub(super) fn is_table_of_iptables(name: &[u8]) -> bool {
    matches!(name.trim_ascii(), b"filter" | b"nat" | b"mangle" | b"raw" | b"security")
}

/// `net.netfilter.nf_conntrack_max = 65536`
pub(super) fn is_sysctl(line: &[u8]) -> bool {
    const ROOTS: [&[u8]; 11] = [
        b"net.", b"kernel.", b"vm.", b"fs.", b"dev.", b"abi.", b"user.", b"crypto.", b"debug.",
        b"sunrpc.", b"net/",
    ];
    let Some(at) = line.iter().position(|byte| *byte == b'=') else { return false };
    let name = line[..at].trim_ascii_end();
    ROOTS.iter().any(|root| name.starts_with(root)) && !name.iter().any(u8::is_ascii_whitespace)
}

/// `nf_conntrack 196608 3 nf_nat,nft_ct`, `nf_nat 49152 0 - Live 0x0000000000000000`
fn is_module(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is_name = |word: &[u8]| {
        word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let is_number = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
    let name = words.next().filter(|word| is_name(word) && word.len() > 1);
    let size = words.next().filter(|word| is_number(word));
    let references = words.next().filter(|word| is_number(word) || *word == b"-2");
    let more = words.clone().nth(1);
    let is_state = matches!(more, Some(b"Live" | b"Loading" | b"Unloading"));
    // lsmod prints no state, and many other tables look like its lines: there the name has to be known.
    let is_known = name.is_some_and(|name| {
        ["nf_", "nft_", "xt_", "ip_", "ip6_", "iptable_", "ip6table_", "x_tables"]
            .iter()
            .any(|start| name.starts_with(start.as_bytes()))
    });
    name.is_some()
        && size.is_some()
        && (is_state || is_known)
        && references.is_some()
        && (more.is_none() || is_state)
        && name.is_some_and(|name| !is_number(name))
}

/// `[12345.678901] `, `<4>[ 12.3] `, `[Thu Nov 26 03:00:00 2026] `
fn is_stamped(line: &[u8]) -> bool {
    let line = match line {
        [b'<', rest @ ..] => {
            let Some(at) = rest.iter().position(|byte| *byte == b'>') else { return false };
            &rest[at + 1..]
        }
        line => line,
    };
    let [b'[', rest @ ..] = line else { return false };
    let Some(at) = rest.iter().position(|byte| *byte == b']') else { return false };
    let inner = rest[..at].trim_ascii();
    let is_seconds = inner.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let days: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    !inner.is_empty() && is_seconds || days.iter().any(|day| inner.starts_with(day))
}

/// `Nov 26 03:00:00 sw1 kernel: …`, and messages of conntrack without a time.
fn is_log(line: &[u8], has: &dyn Fn(&str) -> bool) -> bool {
    has(" kernel: ")
        || line.starts_with(b"__REALTIME_TIMESTAMP=")
        || line.starts_with(b"nf_conntrack: ")
        || line.starts_with(b"net_ratelimit: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_known_by_its_root() {
        for line in ["crypto.fips_enabled = 0", "debug.kprobes-optimization = 1", "net.core.x = 1"]
        {
            assert!(is_sysctl(line.as_bytes()), "{line}");
        }
        assert!(!is_sysctl(b"colour.of = mind"));
    }

    #[test]
    fn a_command_tells_what_it_prints() {
        for (command, kind) in [
            ("conntrack -L -o extended", Printed::Entries),
            ("sudo /usr/sbin/conntrack -S", Printed::Counters),
            ("ip netns exec rt conntrack -L expect", Printed::Expectations),
            ("sysctl -a", Printed::Sysctl),
            ("iptables -t nat -nvL", Printed::RulesListed),
            ("iptables -S", Printed::RulesSaved),
            ("ip6tables-legacy-save -c", Printed::RulesSaved),
            ("nft -a list ruleset", Printed::Nft),
            ("nft -j list ruleset", Printed::NftJson),
            ("cat /proc/net/stat/nf_conntrack", Printed::CountersOfProc),
            ("cat /proc/sys/net/netfilter/nf_conntrack_count", Printed::Value),
            ("dmesg -T", Printed::Log),
            ("grep -r conntrack /etc/sysctl.conf /etc/sysctl.d", Printed::SysctlFile),
            ("grep udp /proc/net/nf_conntrack", Printed::Unknown),
            ("show version", Printed::Unknown),
        ] {
            assert_eq!(Printed::by(command), kind, "{command}");
            assert!(!is_filtered(command), "{command}");
        }
    }

    #[test]
    fn a_part_of_the_rules_is_not_read() {
        assert_eq!(Printed::by("iptables-save | grep NAT"), Printed::Other);
        assert_eq!(Printed::by("nft list ruleset | tee x"), Printed::Nft);
        assert!(is_filtered("conntrack -L | head -20") && is_filtered("conntrack -L -p udp"));
    }

    #[test]
    fn a_line_tells_what_it_is() {
        for (line, kind) in [
            ("tcp      6 431999 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1", Printed::Entries),
            ("<flow><meta direction=\"original\">", Printed::Entries),
            ("-A -t 29 -u UNSET -s ::1 -d ::2 -r ::2 -q ::1 -p udp", Printed::Entries),
            ("    [NEW] tcp      6 120 SYN_SENT src=1.1.1.1 dst=2.2.2.2", Printed::Events),
            ("cpu=0   \tfound=0 invalid=3 insert=0", Printed::Counters),
            ("net.netfilter.nf_conntrack_max = 65536", Printed::Sysctl),
            ("nf_conntrack          196608  3 nf_nat,nft_ct,xt_conntrack", Printed::Modules),
            ("nf_nat 49152 0 - Live 0x0000000000000000", Printed::Modules),
            ("*nat", Printed::RulesSaved),
            ("[12:720] -A FORWARD -j ACCEPT", Printed::RulesSaved),
            ("Chain INPUT (policy ACCEPT 0 packets, 0 bytes)", Printed::RulesListed),
            ("table inet filter { # handle 4", Printed::Nft),
            ("[  123.456789] nf_conntrack: table full", Printed::Log),
            ("Nov 26 03:00:00 sw1 kernel: x", Printed::Log),
            ("slabinfo - version: 2.1", Printed::Slab),
        ] {
            assert_eq!(Printed::of_line(line.as_bytes()), Some(kind), "{line}");
        }
        for other in
            ["", "root:x:0:0:root:/root:/bin/sh", "Hello, our switch drops packets.", "12 34"]
        {
            assert_eq!(Printed::of_line(other.as_bytes()), None, "{other}");
        }
    }
}

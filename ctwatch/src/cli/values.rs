//! What options take: the types of their values, and how each is read.

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum;
use ctwatch_abi::{top, trace};
use ipnet::IpNet;
use jiff::{
    Timestamp, Zoned,
    civil::{DateTime, Time},
};

use crate::{
    model::{groups::Grouping, names},
    observe::wanted::Pattern,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reason {
    /// The table is full
    #[value(name = "table_full")]
    TableFull,
    /// Another packet entered the same connection meanwhile
    #[value(name = "clash")]
    Clash,
    /// NAT found no free port
    #[value(name = "nat_exhausted")]
    NatExhausted,
    /// A hash chain is too long
    #[value(name = "chain_too_long")]
    ChainTooLong,
    /// Dropped before conntrack had an entry: full, or a rule in the raw table (tracepoint only)
    #[value(name = "untracked")]
    Untracked,
    /// Dropped with a new entry: at confirmation, or by a rule (tracepoint only)
    #[value(name = "unconfirmed")]
    Unconfirmed,
}

impl From<Reason> for trace::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::TableFull => Self::TableFull,
            Reason::Clash => Self::Clash,
            Reason::NatExhausted => Self::NatExhausted,
            Reason::ChainTooLong => Self::ChainTooLong,
            Reason::Untracked => Self::Untracked,
            Reason::Unconfirmed => Self::Unconfirmed,
        }
    }
}

/// Whose names of metrics are served too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compat {
    /// node_exporter's
    Node,
}

/// `127.0.0.1:10466`, `[::1]:10466`; `:10466` is every address of this host, as other exporters have it.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.to_owned(),
    };
    whole.parse().map_err(|_| {
        "no address and port such as 127.0.0.1:10466, [::1]:10466 or :10466 (all addresses)"
            .to_owned()
    })
}

pub(super) fn telemetry_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let is_path =
        text.len() > 1 && text.len() <= 200 && text.starts_with('/') && text.chars().all(plain);
    let is_taken = text.starts_with("/-/") || text.starts_with("/api/");
    match is_path && !is_taken {
        true => Ok(text.to_owned()),
        false => {
            Err("no path such as /metrics, of letters, digits and -._~/, outside /-/ and /api/"
                .to_owned())
        }
    }
}

/// A protocol's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = names::protocol_number(text);
        number.map(Self).ok_or_else(|| {
            "neither a protocol such as tcp or udp nor a number up to 255".to_owned()
        })
    }
}

/// A port, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    Number(u16),
    Service(String),
}

impl std::str::FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) => Ok(Self::Number(number)),
            // A name has a letter in it.
            Err(_) if text.chars().any(char::is_alphabetic) => Ok(Self::Service(text.to_owned())),
            Err(_) => Err("neither a port up to 65535 nor the name of a service".to_owned()),
        }
    }
}

pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map_err(|_| "neither an address nor a prefix such as 10.0.0.0/8 or fd00::/8".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CensusMechanism {
    /// The walk where it can be had
    Auto,
    /// A walk through the table inside the kernel, all namespaces at once, without locks
    Walk,
    /// Lists from ctnetlink, one namespace after the other
    Ctnetlink,
    /// Lists from /proc/net/nf_conntrack, where there is no ctnetlink
    Procfs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CensusBy {
    Source,
    Destination,
    /// Destination, protocol and port
    Service,
    /// Source and service
    Flow,
    /// Who answers: where NAT really sends it, with protocol and port
    Backend,
    /// Whom it answers: the source that NAT shows to others
    ReplyDestination,
    /// Protocol and state, and the time they have left
    State,
    /// Conntrack zone
    Zone,
    /// Kubernetes pod, over all network namespaces
    Pod,
    /// Kubernetes namespace: all its pods
    Namespace,
}

impl CensusBy {
    /// What a list is made by, where it is a list.
    pub fn key(&self) -> Option<top::By> {
        Some(match self {
            Self::Source => top::By::Source,
            Self::Destination => top::By::Destination,
            Self::Service => top::By::Service,
            Self::Flow => top::By::Flow,
            Self::Backend => top::By::Backend,
            Self::ReplyDestination => top::By::ReplyDestination,
            Self::State | Self::Zone | Self::Pod | Self::Namespace => return None,
        })
    }

    /// By what network namespaces are put together, where that is asked for.
    pub fn grouping(&self) -> Option<Grouping> {
        match self {
            Self::Pod => Some(Grouping::Pod),
            Self::Namespace => Some(Grouping::Namespace),
            _ => None,
        }
    }
}

/// One threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LimitArgs {
    /// Percent.
    Fill(f64),
    /// Percent.
    Pinned(f64),
    /// A second.
    Drops(f64),
    Full(Duration),
    /// Since the last call.
    Dropped(u32),
}

impl std::str::FromStr for LimitArgs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((what, limit)) = text.split_once('=') else {
            // As users of other plugins write it.
            if text.ends_with('%') {
                return percent(text).map(Self::Fill);
            }
            let written = "a limit is written fill=80% (or 80%), pinned=60%, drops=1, full=10m or \
                           dropped=0";
            return Err(written.to_owned());
        };
        Ok(match what {
            "fill" => Self::Fill(percent(limit)?),
            "pinned" => Self::Pinned(percent(limit)?),
            "drops" => Self::Drops(per_s(limit)?),
            "full" => Self::Full(time(limit)?),
            "dropped" => Self::Dropped(packets(limit)?),
            other => {
                return Err(format!("{other:?} is none of fill, pinned, drops, full, dropped"));
            }
        })
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    // From nothing on would be always; beyond all, never.
    percent
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .ok_or_else(|| format!("{text:?} is no share such as 80%, more than 0% and at most 100%"))
}

fn packets(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of packets such as 0 or 10"))
}

fn per_s(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("{text:?} is no number of packets a second such as 0, 0.5 or 10"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MechanismArg {
    /// The best for each figure
    Auto,
    /// eBPF programs on conntrack's functions, by BTF
    Fexit,
    /// eBPF programs on conntrack's functions, by kprobes
    Kprobe,
    /// eBPF programs on the kernel's generic tracepoints
    Tracepoint,
    /// Conntrack's own counters only: no eBPF
    Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Source,
    Destination,
    /// Destination, protocol and port
    Service,
    /// Source and service
    Flow,
    /// The interface it came in by
    Interface,
    /// The process of this host that had the CPU, and its cgroup
    Process,
}

impl From<&By> for top::By {
    fn from(by: &By) -> Self {
        match by {
            By::Source => Self::Source,
            By::Destination => Self::Destination,
            By::Service => Self::Service,
            By::Flow => Self::Flow,
            By::Interface => Self::Interface,
            By::Process => Self::Process,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColoursArg {
    None,
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChartsArg {
    Braille,
    Blocks,
    Ascii,
}

/// What one `--netns` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    One(NetnsArg),
    Like(Pattern),
    Not(Pattern),
}

impl std::str::FromStr for Word {
    type Err = <NetnsArg as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix('!') {
            return Ok(Self::Not(Pattern::exactly(rest)));
        }
        match Pattern::of(text) {
            Some(pattern) => Ok(Self::Like(pattern)),
            None => text.parse().map(Self::One),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Who reads what a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// Nagios, and whatever reads its plugins.
    Plugin,
    /// Kubernetes' node-problem-detector.
    Npd,
}

/// Which namespace is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsArg {
    All,
    Inode(u32),
    Name(String),
    Path(std::path::PathBuf),
    /// A name where one is called so, else an inode number.
    Word(String),
}

impl std::str::FromStr for NetnsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As lsns, readlink and mountinfo print it.
        let printed = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        if let Some(number) = text.strip_prefix("inode:").or(printed) {
            let wrong = || format!("{number:?} is no inode number of a network namespace");
            return number.parse().map(Self::Inode).map_err(|_| wrong());
        }
        Ok(match text.strip_prefix("name:") {
            Some(name) => Self::Name(name.to_owned()),
            None if text == "all" => Self::All,
            None if text.starts_with('/') => Self::Path(text.into()),
            None => Self::Word(text.to_owned()),
        })
    }
}

/// In the order in which each was named first.
pub(super) fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut seen, one| {
        if !seen.contains(&one) {
            seen.push(one);
        }
        seen
    })
}

pub(super) fn count() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    match time(text) {
        Ok(_) => period(text),
        Err(_) => Err("neither a command nor a time such as 500ms, 1s or 2m".to_owned()),
    }
}

pub(super) fn period(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(86_400);
    let time = time(text)?;
    let sound = (LEAST..=MOST).contains(&time);
    sound.then_some(time).ok_or_else(|| "an interval is between 100ms and one day".to_owned())
}

/// `30d`, `12h`, `90m`.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    let time = match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) => Ok(Duration::from_secs(u64::from(days) * 86_400)),
        _ => time(text),
    };
    time.map_err(|_| format!("{text:?} is no time such as 30d, 12h or 90m"))
}

/// `256MB`, `2GB`, `500M`, `100000`: powers of 1,024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size such as 100MB or 2GB");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = text[digits.len()..].trim().to_ascii_uppercase();
    let shift = match unit.trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A moment that is over: as in RFC 3339, in local time with or without its date, or so long ago.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_at(text, &Zoned::now())
}

fn moment_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let zone = now.time_zone();
    let local = |time: DateTime| time.to_zoned(zone.clone()).ok().map(|time| time.timestamp());
    let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"];
    let dated = formats.iter().find_map(|format| DateTime::strptime(format, text).ok());
    if let Some(time) = dated.and_then(local) {
        return Ok(time);
    }
    let clock = ["%H:%M:%S", "%H:%M"].iter().find_map(|format| Time::strptime(format, text).ok());
    if let Some(clock) = clock {
        let today = now.date();
        // The last time that the clock showed it.
        let days = [Some(today), today.yesterday().ok()];
        let moments = days.into_iter().flatten().filter_map(|day| local(day.to_datetime(clock)));
        if let Some(moment) = moments.into_iter().find(|moment| *moment <= now.timestamp()) {
            return Ok(moment);
        }
    }
    let ago = text.strip_suffix("ago").map_or(text, str::trim_end);
    let ago = days(ago).ok().and_then(|ago| now.timestamp().checked_sub(ago).ok());
    ago.ok_or_else(|| {
        format!("{text:?} is no moment such as 03:00, '2026-11-26 03:00' or 90m (so long ago)")
    })
}

/// Seconds, or with a unit.
fn time(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => text.parse::<jiff::SignedDuration>().ok().and_then(|time| time.try_into().ok()),
    };
    parsed.ok_or_else(|| format!("{text:?} is no time such as 500ms, 1s or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_or_have_a_unit() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-1", "99ms", "2d", "NaN", "inf", "1e99", "soon"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_local_or_so_long_ago() {
        let now: Timestamp = "2026-11-26T08:00:00Z".parse().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let of = |text| moment_at(text, &now).map(|moment| moment.to_string());
        for (text, moment) in [
            ("03:00", "2026-11-26T03:00:00Z"),
            ("03:00:07", "2026-11-26T03:00:07Z"),
            ("23:30", "2026-11-25T23:30:00Z"),
            ("2026-11-20 03:00", "2026-11-20T03:00:00Z"),
            ("2026-11-20T03:00:09", "2026-11-20T03:00:09Z"),
            ("2026-11-20T03:00:00+02:00", "2026-11-20T01:00:00Z"),
            ("90m", "2026-11-26T06:30:00Z"),
            ("90m ago", "2026-11-26T06:30:00Z"),
            ("2d", "2026-11-24T08:00:00Z"),
        ] {
            assert_eq!(of(text), Ok(moment.to_owned()), "{text}");
        }
        for bad in ["", "25:00", "yesterday", "2026-13-01 00:00", "99999999999d"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let all = ["100", "1k", "256MB", "2 GB", "1GiB", "3T"].map(bytes);
        let wanted = [100, 1024, 256 << 20, 2 << 30, 1 << 30, 3 << 40].map(Ok);
        assert_eq!(all, wanted);
        for bad in
            ["", "MB", "-1", "1.5GB", "5 apples", "99999999999999999999", "18446744073709551615T"]
        {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_or_have_a_letter() {
        assert_eq!("53".parse(), Ok(Port::Number(53)));
        assert_eq!("http-alt".parse(), Ok(Port::Service("http-alt".to_owned())));
        for bad in ["", "-1", "65536", "5.3", "*"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_the_unit_of_their_figure() {
        assert_eq!("fill=82.5%".parse(), Ok(LimitArgs::Fill(82.5)));
        assert_eq!("75%".parse(), Ok(LimitArgs::Fill(75.0)));
        assert_eq!("pinned=100%".parse(), Ok(LimitArgs::Pinned(100.0)));
        assert_eq!("drops=0".parse(), Ok(LimitArgs::Drops(0.0)));
        assert_eq!("dropped=0".parse(), Ok(LimitArgs::Dropped(0)));
        assert_eq!("full=10m".parse(), Ok(LimitArgs::Full(Duration::from_secs(600))));
        for bad in [
            "",
            "fill",
            "fill=",
            "fill=80",
            "fill=0.8",
            "fill=0%",
            "fill=101%",
            "fill=-1%",
            "fill=NaN%",
            "pinned=half",
            "drops=-1",
            "drops=inf",
            "drops=80%",
            "full=soon",
            "dropped=0.5",
            "dropped=-1",
            "80",
            "0%",
            "load=5",
        ] {
            assert!(bad.parse::<LimitArgs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces_are_meant_in_many_forms() {
        for (text, meant) in [
            ("all", NetnsArg::All),
            ("name:all", NetnsArg::Name("all".to_owned())),
            ("name:name:x", NetnsArg::Name("name:x".to_owned())),
            ("4711", NetnsArg::Word("4711".to_owned())),
            ("docker/1f0b", NetnsArg::Word("docker/1f0b".to_owned())),
            ("inode:4711", NetnsArg::Inode(4711)),
            ("net:[4026532246]", NetnsArg::Inode(4_026_532_246)),
            ("/run/netns/rt", NetnsArg::Path("/run/netns/rt".into())),
            ("/proc/1/ns/net", NetnsArg::Path("/proc/1/ns/net".into())),
        ] {
            assert_eq!(text.parse(), Ok(meant), "{text}");
        }
        for bad in ["inode:", "inode:rt", "net:[]", "net:[99999999999]"] {
            assert!(bad.parse::<NetnsArg>().is_err(), "{bad}");
        }
    }
}

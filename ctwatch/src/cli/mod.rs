//! The command line: its verbs and options, and what `--help` shows of them; no logic.
//!
//! Help is one screen: the first line of each comment here. What it has no room for is in docs/.

mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use ctwatch_abi::top;
use ipnet::IpNet;
pub(crate) use values::interval;
pub use values::{
    By, CensusBy, CensusMechanism, ChartsArg, CheckOutput, ColoursArg, Compat, LimitArgs,
    MechanismArg, NetnsArg, Output, Port, Protocol, Reason, Word,
};
use values::{
    bytes, count, days, distinct, listen_address, moment, period, prefix, telemetry_path,
};

use crate::{model::groups::Grouping, observe::wanted::Whose};

/// Of a verb: what it does, examples, its options, and where there is more.
macro_rules! screen {
    ($more:literal) => {
        concat!(
            "{about}\n\n{before-help}{usage-heading} {usage}\n\nOptions:\n{options}{after-help}\nMore: ",
            $more
        )
    };
}

const OVERVIEW: &str = "\
{about}

Examples:
  ctwatch doctor              what is wrong, whose packets are dropped, the fix
  ctwatch                     live: how full each table is, what is dropped

{usage-heading} {usage}
Commands:
{subcommands}
Options:
  [INTERVAL [COUNT]]  and all options of `ctwatch watch`, the default command
  -h, --help          Print help; `ctwatch COMMAND --help`: of that command
  -V, --version       Print version
Run it as root. With --mask no name or address is shown. More: README.md";
const DOCTOR: &str = "\
Examples:
  ctwatch doctor                  look once; print findings, fixes and undos
  ctwatch doctor --for 10s        count drops for 10 seconds
  ctwatch doctor --write /root/f  write the files of each fix into a new folder
  ctwatch doctor --from /var/lib/ctwatch --at 03:00   as it was then
  ctwatch doctor --from sosreport-sw1     what other tools printed on a box";
const WATCH: &str = "\
Examples:
  ctwatch                             a line a second for each busy namespace
  ctwatch 5 12                        every 5 seconds, 12 times
  ctwatch --top 10 --by source,flow   with the top talkers in every tick";
const WATCH_USAGE: &str = "ctwatch [watch] [OPTIONS] [INTERVAL [COUNT]]";
const TOP: &str = "\
Examples:
  ctwatch top                         all namespaces; ? shows the keys
  ctwatch top --from /var/lib/ctwatch --since 03:00 --until 03:20";
const RECORD: &str = "\
Examples:
  ctwatch record                      into /var/lib/ctwatch, until it is stopped
  ctwatch record /data/rec --keep 1GB
  ctwatch record --cut /root/night.gz --since 03:00 --mask   to send it
  ctwatch --from /var/lib/ctwatch --since 03:00 --until 03:20";
const SERVE: &str = "\
Examples:
  ctwatch serve                       on http://127.0.0.1:10466/metrics
  ctwatch serve --web.listen-address :10466 --record /var/lib/ctwatch
  ctwatch serve --textfile /var/lib/node_exporter   without any port";
const INCIDENTS: &str = "\
Examples:
  ctwatch incidents                          of /var/lib/ctwatch, a line each
  ctwatch incidents --since 2d --output json
  ctwatch incidents --id 5f0cbb0e            all that is known of it";
const REPORT: &str = "\
Examples:
  ctwatch report -o night.html --since 03:00 --until 03:30
  ctwatch report --from /data/rec -o all.html";
const CENSUS: &str = "\
Examples:
  ctwatch census                  top 10 sources, destinations and services
  ctwatch census --by pod         entries of each Kubernetes pod
  ctwatch census --netns rt --by flow --top 50";
const COLLECT: &str = "\
Examples:
  ctwatch collect                     into ctwatch-HOST-TIME.tar.gz, in 10 s
  ctwatch collect --mask -o case.tar.gz
  ctwatch doctor --from case.tar.gz   elsewhere, as any user";
const TRACE: &str = "\
Examples:
  ctwatch trace                   100 packets a second at most, until Ctrl-C
  ctwatch trace --src 10.0.0.0/8 --dport domain -n 20";
const CHECK: &str = "\
Examples:
  ctwatch check                   the fullest namespace, and drops in any
  ctwatch check -w 75%,full=10m -c 90%
  ctwatch check -w dropped=0 --state /var/lib/ctwatch-check.json";
const LIMITS: &str = "\
LIMIT: 80% or fill=80%, pinned=60%, drops=1 (a second), full=10m (time left),
dropped=0 (since the last call, with --state); several with commas.
Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; npd: 1 a problem, 2 UNKNOWN.";

/// Of the ports that exporters agreed on (9100 to 9999) none is left.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10466);

/// Lists of top talkers are grouped by these without `--by`.
pub const DEFAULT_BY: [top::By; 4] =
    [top::By::Source, top::By::Service, top::By::Interface, top::By::Process];

/// Show how full conntrack tables are, what conntrack drops, and whose packets
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 80)]
#[command(disable_help_flag = true, disable_help_subcommand = true)]
#[command(help_template = OVERVIEW)]
#[command(override_usage = "ctwatch [COMMAND] [OPTIONS]")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub mask: MaskArgs,
    // --help is as short as -h: on a console, a page that scrolls away is not read.
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find what is wrong, why connections are tracked, and what to type
    #[command(help_template = screen!("docs/doctor.md"), before_help = DOCTOR)]
    Doctor(DoctorArgs),
    /// Show how full each table is and what conntrack drops, tick by tick
    #[command(help_template = screen!("docs/watch.md"), before_help = WATCH)]
    #[command(override_usage = WATCH_USAGE)]
    Watch(WatchArgs),
    /// Show a screen to work at: look, narrow, look again
    #[command(help_template = screen!("docs/top.md"), before_help = TOP)]
    Top(TopArgs),
    /// Record what happens, for those who ask the next morning
    #[command(help_template = screen!("docs/record.md"), before_help = RECORD)]
    Record(RecordArgs),
    /// Serve metrics for Prometheus; with --record, record too
    #[command(help_template = screen!("docs/serve.md"), before_help = SERVE)]
    Serve(ServeArgs),
    /// List what happened, from a recording
    #[command(help_template = screen!("docs/incidents.md"), before_help = INCIDENTS)]
    Incidents(IncidentsArgs),
    /// Write one page that tells what happened, from a recording
    #[command(help_template = screen!("docs/report.md"), before_help = REPORT)]
    Report(ReportArgs),
    /// Count the table once: who holds it, in which state, for how long
    #[command(help_template = screen!("docs/census.md"), before_help = CENSUS)]
    Census(CensusArgs),
    /// Collect what a doctor elsewhere needs, into one file to send
    #[command(help_template = screen!("docs/collect.md"), before_help = COLLECT)]
    Collect(CollectArgs),
    /// Print single dropped packets as conntrack drops them
    #[command(help_template = screen!("docs/trace.md"), before_help = TRACE)]
    Trace(TraceArgs),
    /// Check thresholds for monitoring: one line and an exit code
    #[command(help_template = screen!("docs/check.md"), before_help = CHECK, after_help = LIMITS)]
    Check(CheckArgs),
}

impl Cli {
    /// `ctwatch help VERB` is `ctwatch VERB --help`: clap's own would print the long form.
    pub fn of(mut words: Vec<OsString>) -> Result<Self, clap::Error> {
        if words.get(1).is_some_and(|word| word == "help") {
            words.remove(1);
            words.push("--help".into());
        }
        Self::try_parse_from(words)
    }
}

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Count drops for TIME [default: 1s if a table is full]
    #[arg(long = "for", value_name = "TIME", value_parser = interval)]
    pub duration: Option<Duration>,
    /// Write the files of all fixes into DIR, new or empty
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    #[command(flatten)]
    pub which: Which,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
    /// Count only by fexit, kprobe, tracepoint or counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
    #[command(flatten)]
    pub then: Then,
    /// Show what differs between what tools printed
    #[arg(long, value_names = ["A", "B"], num_args = 2,
          conflicts_with_all = ["duration", "write", "mechanism", "netns", "owner", "from"])]
    pub diff: Vec<PathBuf>,
}

/// Which moment of a recording.
#[derive(Clone, Debug, Default, Args)]
pub struct Then {
    /// Look at a recording, at its worst moment; or at what other tools
    /// printed: a file, a folder, or -
    #[arg(long, value_name = "PATH",
          conflicts_with_all = ["duration", "write", "mechanism", "netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Look at the recording as of TIME: 03:00, 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    pub at: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Print a line every INTERVAL; the same as --interval
    #[arg(value_name = "INTERVAL", value_parser = interval, conflicts_with = "interval")]
    #[arg(hide_short_help = true)]
    pub interval_word: Option<Duration>,
    /// Stop after COUNT ticks; the same as --count
    #[arg(value_name = "COUNT", value_parser = count(), conflicts_with = "count")]
    #[arg(hide_short_help = true)]
    pub count_word: Option<u64>,
    /// Show the top N talkers every tick; 0 turns them off [default: 5, only while a table is full]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=100))]
    pub top: Option<u16>,
    /// Group top talkers by source, service, interface, process [default: these 4], destination, flow
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KEY")]
    #[arg(hide_possible_values = true)]
    pub by: Vec<By>,
    /// Tick every TIME: 500ms, 1s, 2m [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Stop after N ticks
    #[arg(short = 'n', long, value_name = "N", value_parser = count())]
    pub count: Option<u64>,
    #[command(flatten)]
    pub which: Which,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
    /// Count only by fexit, kprobe, tracepoint or counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
    /// Record into DIR what is printed
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub record: Option<PathBuf>,
    /// It is for those that scrape: not only for now.
    #[arg(skip)]
    pub serves: bool,
    #[command(flatten)]
    pub past: Past,
}

#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Read every INTERVAL; the same as --interval
    #[arg(value_name = "INTERVAL", value_parser = interval, conflicts_with = "interval")]
    #[arg(hide_short_help = true)]
    pub interval_word: Option<Duration>,
    /// Read every TIME: 500ms, 1s, 2m [default: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Keep the top N talkers of each list [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub top: Option<u16>,
    /// Group talkers by source, service, interface, process, flow [default: these 5], destination
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KEY")]
    #[arg(hide_possible_values = true)]
    pub by: Vec<By>,
    #[command(flatten)]
    pub which: Which,
    /// Count only by fexit, kprobe, tracepoint or counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
    /// Draw with ASCII alone; --charts HOW: braille, blocks
    #[arg(long)]
    pub ascii: bool,
    /// Use none, 8 or 16 colours [default: by TERM]
    #[arg(long, value_enum, value_name = "HOW", hide_possible_values = true)]
    pub colours: Option<ColoursArg>,
    /// Draw charts and bars in braille, blocks or ascii [default: by TERM]
    #[arg(long, value_enum, value_name = "HOW", hide_short_help = true)]
    #[arg(hide_possible_values = true)]
    pub charts: Option<ChartsArg>,
    /// Select and scroll with the mouse
    #[arg(long)]
    pub mouse: bool,
    /// Read settings from FILE
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a file of settings, and exit
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub past: Past,
}

impl TopArgs {
    pub fn interval(&self) -> Duration {
        self.interval.or(self.interval_word).unwrap_or(Duration::from_secs(1))
    }

    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        let by = match self.by.is_empty() {
            true => vec![By::Source, By::Service, By::Interface, By::Process, By::Flow],
            false => self.by.clone(),
        };
        WatchArgs {
            interval_word: None,
            count_word: None,
            top: Some(self.top.unwrap_or(20)),
            by,
            interval: Some(self.interval()),
            count: None,
            which: self.which.clone(),
            output: Output::Text,
            mechanism: self.mechanism,
            record: None,
            past: self.past.clone(),
            serves: false,
        }
    }
}

/// What of a recording.
#[derive(Clone, Debug, Default, Args)]
pub struct Past {
    /// Play back a recording, all or --since --until --at TIME
    #[arg(long, value_name = "PATH",
          conflicts_with_all = ["interval", "interval_word", "mechanism", "netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from")]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from")]
    pub until: Option<jiff::Timestamp>,
    /// Show the one tick at TIME
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = moment, requires = "from",
          conflicts_with_all = ["since", "until"])]
    pub at: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Record into DIR
    #[arg(value_name = "DIR", default_value = "/var/lib/ctwatch")]
    pub folder: PathBuf,
    /// Keep at most SIZE: 100MB, 2GB; the oldest goes first
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256MB")]
    pub keep: u64,
    /// Keep nothing longer than TIME
    #[arg(long, value_name = "TIME", value_parser = days, default_value = "30d")]
    pub keep_for: Duration,
    /// Leave SIZE of the file system free
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256MB")]
    pub free: u64,
    /// Tick every TIME
    #[arg(short, long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// Stop after N ticks
    #[arg(short = 'n', long, value_name = "N", value_parser = count())]
    pub count: Option<u64>,
    #[command(flatten)]
    pub which: Which,
    /// Count only by fexit, kprobe, tracepoint or counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
    /// Copy DIR, or --since --until TIME of it, into FILE
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["keep", "keep_for", "free", "interval", "count", "netns", "owner"])]
    pub cut: Option<PathBuf>,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "cut")]
    #[arg(hide_short_help = true)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "cut")]
    #[arg(hide_short_help = true)]
    pub until: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Args)]
// The names that all exporters have leave little room beside them.
#[command(mut_arg("netns", |arg| arg.help("Only NAME, 'pod-*'; '!x' leaves x out")))]
#[command(mut_arg("owner", |arg| arg.help("Only of owner host, of a UID, or all")))]
pub struct ServeArgs {
    /// Listen here [default: 127.0.0.1:10466]
    #[arg(long = "web.listen-address", value_name = "ADDR", value_parser = listen_address)]
    pub addresses: Vec<SocketAddr>,
    /// Serve metrics there
    #[arg(long = "web.telemetry-path", value_name = "PATH", value_parser = telemetry_path)]
    #[arg(default_value = "/metrics")]
    pub telemetry_path: String,
    /// TLS and users, as FILE says
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen on systemd's sockets
    #[arg(long = "web.systemd-socket", conflicts_with = "addresses")]
    pub systemd_socket: bool,
    /// Write DIR/ctwatch.prom every tick
    #[arg(long, value_name = "DIR")]
    pub textfile: Option<PathBuf>,
    /// Use node_exporter's names too: node
    #[arg(long, value_enum, value_name = "WHOSE", hide_possible_values = true)]
    pub compat: Option<Compat>,
    /// Record into DIR, as ctwatch record
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Tick every TIME
    #[arg(short, long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    #[command(flatten)]
    pub which: Which,
    /// Only fexit, kprobe, tracepoint, counters
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
}

impl ServeArgs {
    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        WatchArgs {
            interval_word: None,
            count_word: None,
            top: None,
            by: Vec::new(),
            interval: Some(self.interval),
            count: None,
            which: self.which.clone(),
            output: Output::Text,
            mechanism: self.mechanism,
            record: self.record.clone(),
            serves: true,
            past: Past::default(),
        }
    }

    /// Where it listens; nowhere, where it only writes files.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match (self.addresses.as_slice(), &self.textfile) {
            ([], Some(_)) => Vec::new(),
            ([], None) => vec![DEFAULT_ADDRESS],
            (addresses, _) => addresses.to_vec(),
        }
    }
}

/// Whether anybody is to learn whose it is. Of all verbs.
#[derive(Clone, Debug, Default, Args)]
pub struct MaskArgs {
    /// Replace names and addresses in all that is printed
    #[arg(long, global = true, hide_short_help = true)]
    pub mask: bool,
    /// Replace them by the key in KEYFILE: the same become the same again
    #[arg(long, global = true, hide_short_help = true, value_name = "KEYFILE")]
    pub mask_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// Write into FILE, which is new; - is standard output [default: ctwatch-HOST-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read counters twice, TIME apart
    #[arg(long, value_name = "TIME", value_parser = period, default_value = "10s")]
    pub duration: Duration,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    /// Read the recording PATH
    #[arg(long, value_name = "PATH", default_value = "/var/lib/ctwatch")]
    pub from: PathBuf,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<jiff::Timestamp>,
    /// Show all of those whose id begins so
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Write the page into FILE; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Read the recording PATH
    #[arg(long, value_name = "PATH", default_value = "/var/lib/ctwatch")]
    pub from: PathBuf,
    /// Begin at TIME: 03:00, '2026-11-26 03:00', or 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<jiff::Timestamp>,
    /// End at TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<jiff::Timestamp>,
}

impl RecordArgs {
    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        WatchArgs {
            interval_word: None,
            count_word: None,
            top: None,
            by: Vec::new(),
            interval: Some(self.interval),
            count: self.count,
            which: self.which.clone(),
            output: Output::Text,
            mechanism: self.mechanism,
            record: Some(self.folder.clone()),
            serves: false,
            past: Past::default(),
        }
    }
}

impl WatchArgs {
    pub fn interval(&self) -> Duration {
        self.interval.or(self.interval_word).unwrap_or(Duration::from_secs(1))
    }

    pub fn by(&self) -> Vec<top::By> {
        match self.by.is_empty() {
            true => DEFAULT_BY.to_vec(),
            false => distinct(self.by.iter().map(top::By::from)),
        }
    }

    /// A person asked for top lists.
    pub fn asks_for_lists(&self) -> bool {
        self.tops() > 0 && (self.top.is_some() || !self.by.is_empty())
    }

    /// Entries of a top list.
    pub fn tops(&self) -> usize {
        usize::from(self.top.unwrap_or(if self.serves { 10 } else { 5 }))
    }

    pub fn count(&self) -> Option<u64> {
        self.count.or(self.count_word)
    }
}

#[derive(Clone, Debug, Args)]
pub struct CensusArgs {
    /// Group entries by state, source, destination, service [default: these 4], flow, backend,
    /// reply-destination, zone, pod, namespace
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KEY",
          default_values_t = [CensusBy::State, CensusBy::Source, CensusBy::Destination,
                              CensusBy::Service])]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub by: Vec<CensusBy>,
    /// List the top N of each
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub top: u16,
    #[command(flatten)]
    pub which: Which,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
    /// Count only by walk, ctnetlink or procfs
    #[arg(long, value_enum, default_value_t = CensusMechanism::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: CensusMechanism,
    /// Show the last census of a recording; or count what conntrack -L printed: a file, a folder, or -
    #[arg(long, value_name = "PATH", conflicts_with_all = ["mechanism", "netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Show the last one recorded before TIME: 03:00, '2026-11-26 03:00', 90m ago
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    pub at: Option<jiff::Timestamp>,
}

impl CensusArgs {
    /// What there are to be lists by.
    pub fn keys(&self) -> Vec<top::By> {
        distinct(self.by.iter().filter_map(CensusBy::key))
    }

    /// And what tables of pods.
    pub fn groupings(&self) -> Vec<Grouping> {
        distinct(self.by.iter().filter_map(CensusBy::grouping))
    }
}

#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Only packets from this address or prefix
    #[arg(long, value_name = "ADDR", value_parser = prefix)]
    pub src: Option<IpNet>,
    /// Only packets to this address or prefix
    #[arg(long, value_name = "ADDR", value_parser = prefix)]
    pub dst: Option<IpNet>,
    /// Only packets of this protocol, by name or number
    #[arg(long, value_name = "NAME")]
    pub proto: Option<Protocol>,
    /// Only packets to this port, by name or number
    #[arg(long, value_name = "PORT")]
    pub dport: Option<Port>,
    /// Only drops for table_full, clash, nat_exhausted, chain_too_long, untracked, unconfirmed
    #[arg(long, value_enum, value_delimiter = ',', value_name = "REASON")]
    #[arg(hide_possible_values = true)]
    pub reason: Vec<Reason>,
    /// Stop after N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = count())]
    pub count: Option<u64>,
    /// Print at most N lines a second
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    #[command(flatten)]
    pub which: Which,
    /// Print text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub output: Output,
    /// Trace only by fexit, kprobe or tracepoint
    #[arg(long, value_enum, default_value_t = MechanismArg::Auto)]
    #[arg(value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub mechanism: MechanismArg,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Warn at LIMIT [default: fill=80%,drops=0]
    #[arg(short, long, value_delimiter = ',', value_name = "LIMIT")]
    pub warning: Vec<LimitArgs>,
    /// Be critical at LIMIT [default: fill=95%,drops=1]
    #[arg(short, long, value_delimiter = ',', value_name = "LIMIT")]
    pub critical: Vec<LimitArgs>,
    /// Count drops and the trend for TIME
    #[arg(long = "for", value_name = "TIME", value_parser = period, default_value = "1s")]
    pub period: Duration,
    #[command(flatten)]
    pub which: Which,
    /// Remember counts in FILE, one for each check
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub state: Option<PathBuf>,
    /// Judge the end of a recording, or --at TIME of it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["netns", "owner"])]
    pub from: Option<PathBuf>,
    /// Judge it as it was at TIME
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    #[arg(hide_short_help = true)]
    pub at: Option<jiff::Timestamp>,
    /// Print for plugin, or npd (node-problem-detector)
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Plugin)]
    #[arg(value_name = "FORMAT", hide_possible_values = true, hide_default_value = true)]
    pub output: CheckOutput,
}

/// Which namespaces.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Only namespace NAME; 'pod-*' matches, '!x' leaves out
    #[arg(long, value_name = "NAME")]
    pub netns: Vec<Word>,
    /// Only namespaces of owner host, of a UID, or of all
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<Whose>,
}

impl Which {
    /// The only one that was asked for, where nothing else was.
    pub fn one(&self) -> Option<&NetnsArg> {
        match self.netns.as_slice() {
            [Word::One(netns)] => Some(netns),
            _ => None,
        }
    }

    /// Nobody said which.
    pub fn is_any(&self) -> bool {
        matches!(self.netns.as_slice(), [] | [Word::One(NetnsArg::All)])
    }

    /// In words that another call compares with its own.
    pub fn words(&self) -> String {
        let words = self.netns.iter().map(|word| match word {
            Word::One(NetnsArg::All) => "all".to_owned(),
            Word::One(NetnsArg::Inode(inode)) => format!("inode:{inode}"),
            Word::One(NetnsArg::Name(name)) => format!("name:{name}"),
            Word::One(NetnsArg::Path(path)) => path.display().to_string(),
            Word::One(NetnsArg::Word(word)) => word.clone(),
            Word::Like(pattern) => pattern.to_string(),
            Word::Not(pattern) => format!("!{pattern}"),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::observe::wanted::Pattern;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn plain_ctwatch_takes_what_watch_takes() {
        let plain = Cli::try_parse_from(["ctwatch", "2", "5", "--output", "json"]).unwrap();
        assert_eq!(
            (plain.watch.interval(), plain.watch.count()),
            (Duration::from_secs(2), Some(5))
        );
        let cli = Cli::try_parse_from(["ctwatch", "watch", "-i", "2s", "-n", "5"]).unwrap();
        let Some(Command::Watch(watch)) = cli.command else { panic!() };
        assert_eq!((watch.interval(), watch.count()), (Duration::from_secs(2), Some(5)));
    }

    #[test]
    fn a_key_named_again_counts_once() {
        let words = ["ctwatch", "--by", "service,source,service", "--by", "source"];
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.watch.by(), [top::By::Service, top::By::Source]);
        let words = ["ctwatch", "census", "--by", "state,flow,flow,state,zone"];
        let Some(Command::Census(census)) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        assert_eq!(census.keys(), [top::By::Flow]);
    }

    #[test]
    fn each_verb_chooses_namespaces_alike() {
        for verb in
            ["watch", "top", "record", "serve", "trace", "census", "check", "doctor", "collect"]
        {
            let args = ["ctwatch", verb, "--netns", "pod-*", "--netns", "!pod-x", "--owner", "7"];
            let which = match Cli::try_parse_from(args).unwrap().command.unwrap() {
                Command::Watch(args) => args.which,
                Command::Record(args) => args.which,
                Command::Serve(args) => args.which,
                Command::Trace(args) => args.which,
                Command::Census(args) => args.which,
                Command::Check(args) => args.which,
                Command::Doctor(args) => args.which,
                Command::Collect(args) => args.which,
                Command::Top(args) => args.which,
                Command::Incidents(_) | Command::Report(_) => panic!("of a recording"),
            };
            assert_eq!((which.words(), which.owner), ("pod-* !pod-x".into(), Some(Whose::User(7))));
        }
    }

    #[test]
    fn namespaces_are_meant_by_pattern_too() {
        let of = |args: &[&str]| {
            let args = ["ctwatch", "watch"].iter().chain(args);
            let cli = Cli::try_parse_from(args).unwrap();
            let Some(Command::Watch(watch)) = cli.command else { panic!() };
            watch.which
        };
        let which = of(&["--netns", "pod-*", "--netns", "!pod-x", "--netns", "rt", "--owner", "7"]);
        let like = Word::Like(Pattern::of("pod-*").unwrap());
        let rt = NetnsArg::Word("rt".to_owned());
        let not = Word::Not(Pattern::exactly("pod-x"));
        assert_eq!(which.netns, [like, not, Word::One(rt.clone())]);
        assert_eq!((which.owner, which.one()), (Some(Whose::User(7)), None));
        assert_eq!(which.words(), "pod-* !pod-x rt");
        assert_eq!(of(&["--netns", "rt"]).one(), Some(&rt));
        assert!(of(&[]).is_any() && of(&["--netns", "all"]).is_any());
        assert!(!of(&["--netns", "!rt"]).is_any());
    }
}

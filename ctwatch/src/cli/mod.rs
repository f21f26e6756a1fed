//! The command line: its verbs and options, and what `--help` shows of them; no logic.
//!
//! Help is one screen: the first line of each comment here. What it has no room for is in docs/.

mod census;
mod check;
mod collect;
mod doctor;
mod incidents;
mod record;
mod report;
mod serve;
mod shared;
mod top;
mod trace;
mod values;
mod watch;

use std::ffi::OsString;

pub use self::{
    census::CensusArgs,
    check::CheckArgs,
    collect::CollectArgs,
    doctor::{DoctorArgs, Then},
    incidents::IncidentsArgs,
    record::RecordArgs,
    report::ReportArgs,
    serve::{DEFAULT_ADDRESS, ServeArgs},
    shared::{HowArgs, MaskArgs, OutputArgs, Past, Which},
    top::TopArgs,
    trace::TraceArgs,
    watch::{DEFAULT_BY, WatchArgs},
};
use clap::{ArgAction, Parser, Subcommand};
pub(crate) use values::interval;
pub use values::{
    By, CensusBy, CensusMechanism, ChartsArg, CheckOutput, ColoursArg, Compat, LimitArgs,
    MechanismArg, NetnsArg, Output, Port, Protocol, Reason, Word,
};

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
    #[command(help_template = screen!("docs/doctor.md"), before_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Show how full each table is and what conntrack drops, tick by tick
    #[command(help_template = screen!("docs/watch.md"), before_help = watch::EXAMPLES)]
    #[command(override_usage = watch::USAGE)]
    Watch(WatchArgs),
    /// Show a screen to work at: look, narrow, look again
    #[command(help_template = screen!("docs/top.md"), before_help = top::EXAMPLES)]
    Top(TopArgs),
    /// Record what happens, for those who ask the next morning
    #[command(help_template = screen!("docs/record.md"), before_help = record::EXAMPLES)]
    Record(RecordArgs),
    /// Serve metrics for Prometheus; with --record, record too
    #[command(help_template = screen!("docs/serve.md"), before_help = serve::EXAMPLES)]
    Serve(ServeArgs),
    /// List what happened, from a recording
    #[command(help_template = screen!("docs/incidents.md"), before_help = incidents::EXAMPLES)]
    Incidents(IncidentsArgs),
    /// Write one page that tells what happened, from a recording
    #[command(help_template = screen!("docs/report.md"), before_help = report::EXAMPLES)]
    Report(ReportArgs),
    /// Count the table once: who holds it, in which state, for how long
    #[command(help_template = screen!("docs/census.md"), before_help = census::EXAMPLES)]
    Census(CensusArgs),
    /// Collect what a doctor elsewhere needs, into one file to send
    #[command(help_template = screen!("docs/collect.md"), before_help = collect::EXAMPLES)]
    Collect(CollectArgs),
    /// Print single dropped packets as conntrack drops them
    #[command(help_template = screen!("docs/trace.md"), before_help = trace::EXAMPLES)]
    Trace(TraceArgs),
    /// Check thresholds for monitoring: one line and an exit code
    #[command(help_template = screen!("docs/check.md"), before_help = check::EXAMPLES, after_help = check::LIMITS)]
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;
    use ctwatch_abi::top::By as Key;

    use super::*;
    use crate::observe::wanted::{Pattern, Whose};

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
        assert_eq!(cli.watch.by(), [Key::Service, Key::Source]);
        let words = ["ctwatch", "census", "--by", "state,flow,flow,state,zone"];
        let Some(Command::Census(census)) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        assert_eq!(census.keys(), [Key::Flow]);
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

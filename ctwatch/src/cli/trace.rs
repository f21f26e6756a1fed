//! What `ctwatch trace` takes.

use clap::Args;
use ipnet::IpNet;

use super::{
    shared::{HowArgs, OutputArgs, Which},
    values::{Port, Protocol, Reason, count, prefix},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch trace                   100 packets a second at most, until Ctrl-C
  ctwatch trace --src 10.0.0.0/8 --dport domain -n 20";

#[derive(Clone, Debug, Args)]
#[command(mut_arg("mechanism", |arg| arg.help("Trace only by fexit, kprobe or tracepoint")))]
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
    #[command(flatten)]
    pub print: OutputArgs,
    #[command(flatten)]
    pub how: HowArgs,
}

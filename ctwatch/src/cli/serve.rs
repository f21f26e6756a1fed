//! What `ctwatch serve` takes.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    shared::{HowArgs, Which},
    values::{Compat, interval, listen_address, telemetry_path},
    watch::WatchArgs,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch serve                       on http://127.0.0.1:10466/metrics
  ctwatch serve --web.listen-address :10466 --record /var/lib/ctwatch
  ctwatch serve --textfile /var/lib/node_exporter   without any port";

/// Of the ports that exporters agreed on (9100 to 9999) none is left.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10466);

#[derive(Clone, Debug, Args)]
// The names that all exporters have leave little room beside them.
#[command(mut_arg("netns", |arg| arg.help("Only NAME, 'pod-*'; '!x' leaves x out")))]
#[command(mut_arg("owner", |arg| arg.help("Only of owner host, of a UID, or all")))]
#[command(mut_arg("mechanism", |arg| arg.help("Only fexit, kprobe, tracepoint, counters")))]
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
    #[command(flatten)]
    pub how: HowArgs,
}

impl ServeArgs {
    /// What `watch` takes for the same.
    pub fn watch(&self) -> WatchArgs {
        WatchArgs {
            record: self.record.clone(),
            serves: true,
            ..WatchArgs::ticking(self.interval, &self.which, self.how)
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

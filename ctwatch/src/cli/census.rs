//! What `ctwatch census` takes.

use std::path::PathBuf;

use clap::Args;
use ctwatch_abi::top;

use super::{
    shared::{OutputArgs, Which},
    values::{CensusBy, CensusMechanism, distinct, moment},
};
use crate::model::groups::Grouping;

pub(super) const EXAMPLES: &str = "\
Examples:
  ctwatch census                  top 10 sources, destinations and services
  ctwatch census --by pod         entries of each Kubernetes pod
  ctwatch census --netns rt --by flow --top 50";

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
    #[command(flatten)]
    pub print: OutputArgs,
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

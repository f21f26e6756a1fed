//! The names that node_exporter gives to the same, for boxes where its own are missing: kernels without
//! `CONFIG_NF_CONNTRACK_PROCFS`. Of one namespace, as there.
//! <https://github.com/prometheus/node_exporter/blob/v1.8.0/collector/conntrack_linux.go>

use super::encoder::{Labels, MetricKind, MetricsWriter};
use crate::record::counters::CounterSums;

/// Of the namespace that ctwatch runs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeCounters {
    pub entries: Option<u32>,
    pub limit: Option<u32>,
    pub counters: Option<CounterSums>,
}

pub(super) fn write(out: &mut MetricsWriter, node: &NodeCounters) {
    let none = Labels::default();
    let gauge = |out: &mut MetricsWriter, name, help, value: Option<u64>| {
        if let Some(value) = value {
            out.family(name, MetricKind::Gauge, help);
            out.sample(&none, value);
        }
    };
    let NodeCounters { entries, limit, counters } = *node;
    gauge(
        out,
        "node_nf_conntrack_entries",
        "Entries in the table of this namespace.",
        entries.map(u64::from),
    );
    gauge(out, "node_nf_conntrack_entries_limit", "nf_conntrack_max.", limit.map(u64::from));
    let Some(sums) = counters else { return };
    // `ignore` is gone from the kernel: what it does not count is no 0.
    for (name, help, value) in [
        ("node_nf_conntrack_stat_found", "Lookups that found an entry.", sums.found),
        ("node_nf_conntrack_stat_invalid", "Packets that fit no connection.", sums.invalid),
        (
            "node_nf_conntrack_stat_insert",
            "Entries inserted; on most kernels not counted.",
            sums.insert,
        ),
        ("node_nf_conntrack_stat_insert_failed", "Insertions that failed.", sums.insert_failed),
        (
            "node_nf_conntrack_stat_drop",
            "Packets dropped by conntrack; not those of chain_too_long.",
            sums.drop,
        ),
        (
            "node_nf_conntrack_stat_early_drop",
            "Entries evicted early to make room.",
            sums.early_drop,
        ),
        (
            "node_nf_conntrack_stat_search_restart",
            "Lookups that began anew because the hash table was resized.",
            sums.search_restart,
        ),
    ] {
        gauge(out, name, help, Some(value));
    }
}

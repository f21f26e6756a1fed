//! Where a setting lasts: who else sets it, and where it is to be written then.

use super::{case::Case, owners::Manager};

/// Where a setting lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lasts {
    pub(super) lines: Vec<String>,
    /// A file of sysctl.d is read, and nobody overwrites what it says.
    pub(super) is_file: bool,
}

/// Where the sysctl of this name has to be set to last, by who else sets it.
pub(super) fn place(case: &Case<'_>, name: &str, value: u64) -> Lasts {
    let is_read = case.facts.evidence.files.iter().any(|file| file == "/etc/sysctl.d");
    let mut place = Lasts { lines: Vec::new(), is_file: is_read };
    for owned in case.settings.of(case.facts) {
        let (line, overwrites) = match owned.owner {
            Manager::KubeProxy => kube_proxy(name, value),
            Manager::Vyos => vyos(name, value),
            Manager::Proxmox => proxmox(name, value),
            Manager::OpenWrt => Some((
                "OpenWrt reads /etc/sysctl.d at boot, after its own 11-nf-conntrack.conf; a restart \
                 of the firewall leaves it alone"
                    .to_owned(),
                false,
            )),
            Manager::Ufw => Some((
                "ufw applies /etc/ufw/sysctl.conf after the files of sysctl.d, whenever it starts: \
                 what is named there has to be changed there"
                    .to_owned(),
                false,
            )),
            Manager::Sonic => Some((
                "SONiC keeps /etc with its image: the next image begins without the file".to_owned(),
                false,
            )),
            _ => None,
        }
        .map_or((None, false), |(line, overwrites)| (Some(line), overwrites));
        place.is_file &= !overwrites;
        place.lines.extend(line.map(|line| format!("{line} (seen: {})", owned.evidence)));
    }
    if !is_read && place.lines.is_empty() {
        place.lines.push(
            "until the next boot: nothing that reads /etc/sysctl.d was found here".to_owned(),
        );
    }
    place
}

/// <https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/>
fn kube_proxy(name: &str, value: u64) -> Option<(String, bool)> {
    const IN: &str = "in its configuration (with kubeadm the ConfigMap kube-proxy in kube-system)";
    Some(match name {
        "nf_conntrack_max" => (
            format!(
                "kube-proxy sets nf_conntrack_max whenever it starts, and overwrites this: \
                 conntrack.maxPerCore (for each CPU) and conntrack.min {IN}; maxPerCore: 0, min: \
                 {value} means this number"
            ),
            true,
        ),
        "nf_conntrack_buckets" => (
            "kube-proxy sets the buckets together with the limit, to a fourth of it at least"
                .to_owned(),
            true,
        ),
        "nf_conntrack_tcp_timeout_established" => (
            format!(
                "kube-proxy sets it whenever it starts (24h unless told otherwise): \
                 conntrack.tcpEstablishedTimeout: {value}s {IN}"
            ),
            true,
        ),
        "nf_conntrack_tcp_timeout_close_wait" => (
            format!(
                "kube-proxy sets it whenever it starts (1h unless told otherwise): \
                 conntrack.tcpCloseWaitTimeout: {value}s {IN}"
            ),
            true,
        ),
        "nf_conntrack_udp_timeout" => (
            format!("kube-proxy (1.29 and later) sets it where conntrack.udpTimeout is given {IN}"),
            false,
        ),
        "nf_conntrack_udp_timeout_stream" => (
            format!(
                "kube-proxy (1.29 and later) sets it where conntrack.udpStreamTimeout is given {IN}"
            ),
            false,
        ),
        _ => return None,
    })
}

/// <https://docs.vyos.io/en/latest/configuration/system/conntrack.html>
fn vyos(name: &str, value: u64) -> Option<(String, bool)> {
    let path = match name {
        "nf_conntrack_max" => "table-size".to_owned(),
        "nf_conntrack_buckets" => "hash-size".to_owned(),
        "nf_conntrack_expect_max" => "expect-table-size".to_owned(),
        other => {
            let timeout = other.strip_prefix("nf_conntrack_")?;
            let (protocol, state) = timeout.split_once("_timeout")?;
            let state = match (protocol, state.trim_start_matches('_').replace('_', "-")) {
                ("udp", state) if state.is_empty() => "other".to_owned(),
                (_, state) => state,
            };
            format!("timeout {protocol} {state}").trim_end().to_owned()
        }
    };
    let line = format!(
        "VyOS writes its own settings at each commit and at boot: in configuration mode, set system \
         conntrack {path} {value}, then commit and save"
    );
    Some((line, true))
}

/// <https://pve.proxmox.com/pve-docs/pve-firewall.8.html>, options of host.fw
fn proxmox(name: &str, value: u64) -> Option<(String, bool)> {
    const OPTIONS: [&str; 3] = [
        "nf_conntrack_max",
        "nf_conntrack_tcp_timeout_established",
        "nf_conntrack_tcp_timeout_syn_recv",
    ];
    OPTIONS.contains(&name).then(|| {
        let line = format!(
            "Proxmox VE sets it again and again while its firewall runs: {name}: {value} under \
             [OPTIONS] in /etc/pve/local/host.fw"
        );
        (line, true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::cases;

    #[test]
    fn where_a_setting_lasts_follows_from_its_owner() {
        let of = |process: &str, name: &str| {
            let mut facts = cases::facts(10);
            facts.evidence.processes.push(process.to_owned());
            let case =
                Case { facts: &facts, census: Err("no"), live: None, settings: Default::default() };
            place(&case, name, 60)
        };
        let close_wait = of("kube-proxy", "nf_conntrack_tcp_timeout_close_wait");
        assert!(!close_wait.is_file && close_wait.lines[0].contains("tcpCloseWaitTimeout: 60s"));
        assert!(
            of("kube-proxy", "nf_conntrack_tcp_timeout_time_wait").is_file,
            "it does not set that"
        );
        let vyos = of("vyos-configd", "nf_conntrack_tcp_timeout_time_wait");
        assert!(
            vyos.lines[0].contains("set system conntrack timeout tcp time-wait 60"),
            "{vyos:?}"
        );
        let udp = of("vyos-configd", "nf_conntrack_udp_timeout");
        assert!(udp.lines[0].contains("conntrack timeout udp other 60"), "{udp:?}");
        assert!(
            of("vyos-configd", "nf_conntrack_icmp_timeout").lines[0].contains("timeout icmp 60")
        );
        assert!(of("pve-firewall", "nf_conntrack_max").lines[0].contains("nf_conntrack_max: 60"));
        assert_eq!(of("dockerd", "nf_conntrack_max"), Lasts { lines: Vec::new(), is_file: true });
    }
}

//! To which network namespace a piece belongs: by its name, as sos and `ctwatch collect` name files, or by the
//! command that printed it.

/// The name of a namespace ends before one of these in the names of sos' files.
const COMMANDS: [&str; 16] = [
    "_conntrack_",
    "_conntrack",
    "_iptables-save",
    "_ip6tables-save",
    "_iptables_",
    "_ip6tables_",
    "_iptables-",
    "_ip6tables-",
    "_sysctl_",
    "_sysctl",
    "_nft_",
    "_ipset_",
    "_ss_",
    "_ethtool_",
    "_ip_",
    "_cat_",
];
/// Folders whose subfolders are called after namespaces.
const FOLDERS: [&str; 3] = ["namespaces", "netns", "ip_netns"];

/// `…/namespaces/NAME/ip_netns_exec_NAME_sysctl_-a`, `…/ip_netns_exec_NAME_conntrack_-L`.
pub(super) fn of_name(name: &str) -> Option<&str> {
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        if FOLDERS.contains(&part)
            && let Some(namespace) = parts.next()
            && parts.peek().is_some()
        {
            return Some(namespace);
        }
        if let Some(rest) = part.strip_prefix("ip_netns_exec_") {
            let ends = COMMANDS.iter().filter_map(|command| rest.find(command));
            return ends.min().map(|end| &rest[..end]).filter(|name| !name.is_empty());
        }
    }
    None
}

/// Reports and logs of sos about its own work: they name commands whose output is elsewhere.
pub(super) fn is_about_itself(name: &str) -> bool {
    name.split('/').any(|part| matches!(part, "sos_reports" | "sos_logs"))
}

/// `ip netns exec NAME conntrack -L`: the name, and the command alone, without `sudo` and the like.
pub(super) fn of_command(command: &str) -> (Option<&str>, &str) {
    let mut namespace = None;
    let mut rest = command.trim();
    loop {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let after = after.trim_start();
        match word.rsplit('/').next().unwrap_or(word) {
            "sudo" | "doas" | "time" | "command" => rest = after,
            "ip" => {
                let mut words = after.split_whitespace();
                let is_exec = matches!(words.next(), Some("netns" | "net" | "netn"))
                    && matches!(words.next(), Some("exec" | "ex" | "e"));
                let name = words.next().filter(|_| is_exec);
                let Some(name) = name else { return (namespace, rest) };
                namespace = Some(name);
                let at = name.as_ptr().addr() - rest.as_ptr().addr();
                rest = rest[at + name.len()..].trim_start();
            }
            _ => return (namespace, rest),
        }
        if rest.is_empty() {
            return (namespace, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_a_namespace_names_it() {
        let sos = "sosreport-sw1/sos_commands/networking/namespaces/qrouter-1/";
        for command in ["sysctl_-a", "iptables-save"] {
            let name = format!("{sos}ip_netns_exec_qrouter-1_{command}");
            assert_eq!(of_name(&name), Some("qrouter-1"), "{name}");
        }
        let conntrack = "sos_commands/conntrack/ip_netns_exec_a_b_conntrack_-L_-o_extended";
        assert_eq!(of_name(conntrack), Some("a_b"));
        assert_eq!(of_name("sos_commands/conntrack/conntrack_-S"), None);
        assert_eq!(of_name("sos_commands/networking/namespaces"), None);
    }

    #[test]
    fn a_command_in_a_namespace_names_it() {
        assert_eq!(of_command("sudo ip netns exec rt conntrack -L"), (Some("rt"), "conntrack -L"));
        assert_eq!(of_command("/sbin/ip netns exec rt sysctl -a"), (Some("rt"), "sysctl -a"));
        assert_eq!(of_command("conntrack -S"), (None, "conntrack -S"));
        assert_eq!(of_command("ip addr"), (None, "ip addr"));
        assert_eq!(of_command("sudo"), (None, ""));
    }
}

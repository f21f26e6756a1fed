//! Lines that name the command whose output follows: prompts, and headings of sections.

use super::kind::Printed;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typed<'a> {
    pub(super) command: &'a str,
    /// The host that the prompt names.
    pub(super) host: Option<&'a str>,
}

/// `root@sw1:~# conntrack -L`, `[root@sw1 ~]# conntrack -L`, `# conntrack -L`, `==== conntrack -L ====`.
/// `within` is what is being read: in a file, `# sysctl` is a comment and no command.
pub(super) fn command(line: &[u8], within: Printed) -> Option<Typed<'_>> {
    if let Some(typed) = prompted(line) {
        return Some(typed);
    }
    let line = text(line)?;
    if matches!(within, Printed::SysctlFile | Printed::ModprobeFile) {
        return None;
    }
    let command = headed(line);
    // `==== show version ====` ends the section before it, even if the command is unknown.
    let is_heading = ["==== ", "######## "].iter().any(|mark| line.starts_with(mark))
        && line.ends_with(['=', '#'])
        && !command.is_empty();
    let is_known = Printed::by(command) != Printed::Unknown;
    (is_known || is_heading).then_some(Typed { command, host: None })
}

/// The begin of a line, as text.
fn text(line: &[u8]) -> Option<&str> {
    const LONGEST: usize = 512;
    std::str::from_utf8(line.get(..LONGEST).unwrap_or(line)).ok().map(str::trim)
}

/// A prompt with a user and a host. It ends the output before it, even if the command is unknown.
pub(super) fn prompted(line: &[u8]) -> Option<Typed<'_>> {
    let line = text(line)?;
    let (user, rest) = line.split_once('@')?;
    let user = user.trim_start_matches('[');
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))?;
    let (host, rest) = rest.split_at(end);
    if !is_name(user) || !is_name(host) {
        return None;
    }
    let at = rest.find(['#', '$', '>', '%'])?;
    let (place, command) = rest.split_at(at);
    // `:~`, ` ~]`, `:/etc/sysctl.d`
    let is_place = place.len() < 80 && !place.contains(['=', '"', '|', ';']);
    let command = command[1..].trim();
    is_place.then_some(Typed { command, host: Some(host) })
}

/// The command in a heading, without its decoration.
fn headed(line: &str) -> &str {
    const BEFORE: [&str; 8] =
        ["Command:", "command:", "Running:", "Running", "Executing:", "Output of", "CMD:", "cmd:"];
    let decoration = |c: char| matches!(c, '=' | '#' | '*' | '+' | '~' | ' ' | '\t' | ':' | '$');
    let mut inner = line.trim_matches(decoration);
    inner = inner.trim_start_matches("--").trim_matches('-').trim_matches(decoration);
    for word in BEFORE {
        inner = inner.strip_prefix(word).unwrap_or(inner).trim();
    }
    inner.trim_matches(['\'', '"', '`', '<', '>']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_name_command_and_host() {
        let of = |line: &str| {
            let typed = command(line.as_bytes(), Printed::Unknown)?;
            Some((typed.command.to_owned(), typed.host.map(str::to_owned)))
        };
        for (line, typed, host) in [
            ("root@sw1:~# conntrack -L", "conntrack -L", Some("sw1")),
            ("[root@sw1 ~]# sysctl -a", "sysctl -a", Some("sw1")),
            ("admin@sonic:~$ show version", "show version", Some("sonic")),
            ("root@sw1:/etc/sysctl.d# ", "", Some("sw1")),
            ("# conntrack -S", "conntrack -S", None),
            ("$ lsmod", "lsmod", None),
            ("==== iptables -nvL -t nat ====", "iptables -nvL -t nat", None),
            ("------ sysctl -a ------", "sysctl -a", None),
            ("Command: nft list ruleset", "nft list ruleset", None),
            ("+ dmesg", "dmesg", None),
        ] {
            assert_eq!(of(line), Some((typed.to_owned(), host.map(str::to_owned))), "{line}");
        }
        for line in
            ["# comment", "-A FORWARD -j ACCEPT", "tcp 6 1 src=1.1.1.1", "a@b", "## hello", ""]
        {
            assert_eq!(of(line), None, "{line}");
        }
        let comment = command(b"# sysctl -p reads this", Printed::SysctlFile);
        assert_eq!(comment, None);
    }
}

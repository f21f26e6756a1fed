//! What can be typed on this machine: programs, and what reads files at boot.

use std::{env, fs, path::Path};

use crate::record::facts::{Apply, Framework, Tools};

/// Whatever the doctor may want to be typed.
const TOOLS: [&str; 26] = [
    "nft",
    "iptables",
    "ip6tables",
    "iptables-save",
    "iptables-restore",
    "ip6tables-save",
    "ip6tables-restore",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
    "conntrack",
    "nsenter",
    "systemd-run",
    "sysctl",
    "ip",
    "awk",
    "sed",
];
/// Where root finds programs, whatever PATH this process was given.
const USUAL: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub fn tools() -> Tools {
    let there = |path: &str| Path::new(path).exists();
    let exists = |paths: &[&'static str]| paths.iter().copied().find(|path| there(path));
    let systemd = there("/run/systemd/system");
    Tools {
        there: TOOLS.iter().filter(|tool| find(tool).is_some()).map(|t| (*t).to_owned()).collect(),
        iptables: find("iptables").and_then(|path| backend(&path)),
        systemd,
        udev: exists(&["/run/udev", "/usr/lib/udev", "/lib/udev"]).is_some(),
        apply: apply(exists(&["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"])),
        home: exists(&["/root"]).unwrap_or("/tmp").to_owned(),
        run: exists(&["/run", "/var/run"]).unwrap_or("/tmp").to_owned(),
        stamp: jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string(),
    }
}

fn find(tool: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(USUAL.iter().map(Into::into));
    let files = folders.map(|folder| folder.join(tool));
    let file = files.into_iter().find(|file| file.is_file())?;
    Some(file.display().to_string())
}

/// By what the alternatives of the system make of it.
fn backend(iptables: &str) -> Option<Framework> {
    let real = fs::canonicalize(iptables).ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    if name.contains("legacy") {
        Some(Framework::Legacy)
    } else if name.contains("nft") {
        Some(Framework::Nft)
    } else {
        None
    }
}

fn apply(systemd_sysctl: Option<&str>) -> Option<Apply> {
    if let Some(path) = systemd_sysctl {
        let command = format!("{path} --prefix=/net/netfilter --prefix=/net/nf_conntrack_max");
        return Some(Apply::Prefix(command));
    }
    find("sysctl").map(Apply::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
    }

    #[test]
    fn nothing_applies_the_settings_of_others() {
        let Some(Apply::Prefix(command)) = apply(Some("/x")) else { panic!() };
        assert!(command.starts_with("/x --prefix=/net/netfilter"), "{command}");
        assert!(!matches!(apply(None), Some(Apply::Prefix(_))));
    }

    #[test]
    fn a_stamp_is_a_word() {
        let stamp = tools().stamp;
        assert!(stamp.len() == 16 && stamp.chars().all(|c| c.is_ascii_alphanumeric()), "{stamp}");
    }
}

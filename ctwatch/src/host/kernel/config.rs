//! How the running kernel was configured, as far as it says.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result};

/// What counting depends on.
const WANTED: [&str; 13] = [
    "CONFIG_NF_CONNTRACK",
    "CONFIG_NF_CONNTRACK_PROCFS",
    "CONFIG_NF_CT_NETLINK",
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_JIT",
    "CONFIG_BPF_EVENTS",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEBUG_INFO_BTF_MODULES",
    "CONFIG_KPROBES",
    "CONFIG_KPROBE_EVENTS",
    "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    "CONFIG_KALLSYMS_ALL",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
];

/// Some options, and the file they were read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    pub source: String,
    /// `y`, `m`, another value, or `n` for what is not set.
    pub options: Vec<(&'static str, String)>,
}

/// From `/proc/config.gz`, or where distributions put it.
pub fn read(release: &str) -> Result<Config> {
    const PACKED: &str = "/proc/config.gz";
    if Path::new(PACKED).exists() {
        let file = File::open(PACKED).with_context(|| format!("cannot read {PACKED}"))?;
        return parse(PACKED, flate2::read::GzDecoder::new(file));
    }
    let places = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    for place in &places {
        if let Ok(text) = crate::host::machine::files::text(place) {
            return parse(place, text.as_bytes());
        }
    }
    anyhow::bail!("there is neither {PACKED} nor {}", places.join(" nor "))
}

/// Why the kernel has not what this option stands for, as far as its configuration says.
pub fn why_not(option: &str) -> String {
    match read(&crate::host::kernel_release()) {
        Ok(config) => config.why_not(option),
        Err(_) => format!("a kernel without {option}?"),
    }
}

impl Config {
    fn why_not(&self, option: &str) -> String {
        let value = self.options.iter().find(|(name, _)| *name == option);
        match value.map(|(_, value)| value.as_str()) {
            Some("n") => format!("{option} is not set ({})", self.source),
            Some(value) => format!("although {option}={value} ({})", self.source),
            None => format!("a kernel without {option}?"),
        }
    }
}

/// Far more than any kernel's: what is read must be bounded.
const MOST: u64 = 8 << 20;

/// What such a text sets.
pub fn parse(source: &str, text: impl Read) -> Result<Config> {
    let mut bytes = Vec::new();
    text.take(MOST).read_to_end(&mut bytes).with_context(|| format!("cannot read {source}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let value = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == wanted).map_or("n", |(_, value)| value.trim())
    };
    let options = WANTED.map(|wanted| (wanted, value(wanted).to_owned())).to_vec();
    Ok(Config { source: source.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_n() {
        let text = "CONFIG_NF_CONNTRACK=m\n# CONFIG_KPROBES is not set\nCONFIG_BPF_SYSCALL=y\n";
        let config = parse("here", text.as_bytes()).unwrap();
        let of = |name| config.options.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
        assert_eq!(of("CONFIG_NF_CONNTRACK"), "m");
        assert_eq!((of("CONFIG_KPROBES"), of("CONFIG_BPF_SYSCALL")), ("n", "y"));
        let why = config.why_not("CONFIG_NF_CT_NETLINK");
        assert_eq!(why, "CONFIG_NF_CT_NETLINK is not set (here)");
        assert_eq!(config.why_not("CONFIG_NF_CONNTRACK"), "although CONFIG_NF_CONNTRACK=m (here)");
    }

    #[test]
    fn what_is_no_gzip_is_an_error() {
        let broken = flate2::read::GzDecoder::new(&b"not packed"[..]);
        assert!(parse("broken", broken).unwrap_err().to_string().contains("cannot read broken"));
    }
}

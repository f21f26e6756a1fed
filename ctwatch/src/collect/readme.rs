//! The page for whoever unpacks the archive by hand.

use std::fmt::Write;

use jiff::Timestamp;

/// What is told there. Names are masked by now, where that was asked for.
pub struct Readme {
    pub host: String,
    pub kernel: String,
    pub time: Timestamp,
    /// What to name on the command line.
    pub file: String,
    pub masked: bool,
    /// Seconds between the two readings of the counters.
    pub between: f64,
    /// What was loaded meanwhile; `None`: that could not be seen.
    pub loaded: Option<Vec<String>>,
    /// Each with what is known of it.
    pub namespaces: Vec<(String, String)>,
    /// Namespaces that are not looked into.
    pub others: usize,
    /// Pieces, and what they are.
    pub pieces: Vec<String>,
    /// What is not there, and why.
    pub missing: Vec<String>,
}

const EXPLAINED: [(&str, &str); 16] = [
    (
        "ctwatch/recording.ndjson",
        "counters and fill at two moments, rules, census: what ctwatch reads",
    ),
    ("ctwatch/facts.json", "modules, settings, rules of nftables and iptables, as JSON"),
    ("conntrack_-L_-o_extended", "entries of the table"),
    ("proc_net_nf_conntrack", "entries of the table, as the kernel lists them"),
    ("proc/net/nf_conntrack", "entries of the table, as the kernel lists them"),
    ("conntrack_-S.1", "the counters again"),
    ("conntrack_-S", "the counters of each CPU"),
    ("sysctl_-a", "sysctls: only those of connection tracking"),
    ("proc/modules", "modules that are loaded"),
    ("proc/slabinfo", "memory of entries: only the lines of conntrack"),
    ("proc/", "of the kernel"),
    ("dmesg", "the kernel's log: only the lines about conntrack and about packets and memory"),
    ("uname_-a", "the kernel"),
    ("hostname", "the machine"),
    ("date", "when it was made"),
    ("etc/", "settings that are applied at boot: only the lines about connection tracking"),
];

impl Readme {
    pub fn text(&self) -> String {
        let mut out = String::new();
        // A string takes all that is written.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { host, kernel, time, file, between, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(out, "What {host} says about connection tracking")?;
        writeln!(out, "collected by ctwatch {version} at {time:.0} on Linux {kernel}\n")?;
        writeln!(out, "    ctwatch doctor --from {file}     what is wrong, and what to type")?;
        writeln!(out, "    ctwatch --from {file}            what happened in {between:.0} s")?;
        writeln!(out, "    ctwatch census --from {file}     who held the table\n")?;
        if self.masked {
            writeln!(
                out,
                "Names and addresses are masked: the same becomes the same, prefixes stay.\n"
            )?;
        }
        match &self.loaded {
            Some(loaded) if loaded.is_empty() => {
                writeln!(
                    out,
                    "No module was loaded while it was collected; nothing was changed.\n"
                )?;
            }
            Some(loaded) => writeln!(
                out,
                "Loaded while it was collected, by others: {}. ctwatch asks for nothing that loads one.\n",
                loaded.join(", ")
            )?,
            None => {
                writeln!(out, "Nothing was changed. Which modules are loaded could not be seen.\n")?
            }
        }
        writeln!(out, "Network namespaces")?;
        for (name, about) in &self.namespaces {
            writeln!(out, "    {name}: {about}")?;
        }
        if self.others > 0 {
            writeln!(
                out,
                "    and {} more, which hold less, are not looked into: how full they are is in the recording",
                self.others
            )?;
        }
        writeln!(out, "\nFiles")?;
        for piece in &self.pieces {
            let about = EXPLAINED.iter().find(|(part, _)| piece.contains(part));
            match about {
                Some((_, about)) => writeln!(out, "    {piece}: {about}")?,
                None => writeln!(out, "    {piece}")?,
            }
        }
        writeln!(out, "\nNot here")?;
        if self.missing.is_empty() {
            writeln!(out, "    nothing: all that was asked for could be read")?;
        }
        for missing in &self.missing {
            writeln!(out, "    {missing}")?;
        }
        Ok(())
    }
}

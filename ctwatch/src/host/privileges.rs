//! Which capabilities this process has, and what the lack of one costs.

use rustix::thread::{CapabilitySet, capabilities};

/// What ctwatch uses, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Load programs and create maps.
    Bpf,
    /// Programs of the tracing kind, reading kernel memory.
    Perfmon,
    /// Ask ctnetlink for counters.
    NetAdmin,
    /// Enter other network namespaces.
    SysAdmin,
    /// See kernel addresses in `/proc/kallsyms`.
    Syslog,
}

impl Privilege {
    pub const ALL: [Self; 5] =
        [Self::Bpf, Self::Perfmon, Self::NetAdmin, Self::SysAdmin, Self::Syslog];

    /// What it is used for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Bpf => "load programs",
            Self::Perfmon => "programs that trace and read kernel memory",
            Self::NetAdmin => "ask ctnetlink for counters",
            Self::SysAdmin => "look into other network namespaces, and at what probes missed",
            Self::Syslog => "see kernel addresses where they are hidden",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Syslog => "CAP_SYSLOG",
        }
    }

    fn flag(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
            Self::Syslog => CapabilitySet::SYSLOG,
        }
    }
}

/// The effective capabilities, as plain data.
#[derive(Clone, Copy, Debug)]
pub struct Privileges(CapabilitySet);

impl Privileges {
    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self(CapabilitySet::all())
    }

    pub fn read() -> Self {
        // An answer that cannot be had counts as no privilege: what then fails says so itself.
        Self(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
    }

    /// `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` too, as it does in the kernel.
    pub fn has(self, privilege: Privilege) -> bool {
        let implied = matches!(privilege, Privilege::Bpf | Privilege::Perfmon)
            && self.0.contains(CapabilitySet::SYS_ADMIN);
        implied || self.0.contains(privilege.flag())
    }
}

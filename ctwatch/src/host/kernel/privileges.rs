//! Which capabilities this process has, what the lack of one costs, and which are given up: all that
//! are not used, for good, before there is a second thread. Each thread has its own.

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

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
    /// Read which namespace a process is in that has capabilities which this one lacks.
    SysPtrace,
}

impl Privilege {
    pub const ALL: [Self; 6] =
        [Self::Bpf, Self::Perfmon, Self::NetAdmin, Self::SysAdmin, Self::Syslog, Self::SysPtrace];

    /// What it is used for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Bpf => "load programs",
            Self::Perfmon => "programs that trace and read kernel memory",
            Self::NetAdmin => "ask ctnetlink for counters",
            Self::SysAdmin => "look into other network namespaces, and at what probes missed",
            Self::Syslog => "see kernel addresses where they are hidden",
            Self::SysPtrace => "see the namespaces of processes with more capabilities",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Syslog => "CAP_SYSLOG",
            Self::SysPtrace => "CAP_SYS_PTRACE",
        }
    }

    fn flag(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
            Self::Syslog => CapabilitySet::SYSLOG,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
        }
    }
}

/// The effective capabilities, as plain data.
#[derive(Clone, Copy, Debug)]
pub struct Privileges(CapabilitySet);

impl Privileges {
    pub fn read() -> Self {
        // An answer that cannot be had counts as no privilege: what then fails says so itself.
        Self(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(CapabilitySet::empty())
    }

    /// `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` too, as it does in the kernel.
    pub fn has(self, privilege: Privilege) -> bool {
        let implied = matches!(privilege, Privilege::Bpf | Privilege::Perfmon)
            && self.0.contains(CapabilitySet::SYS_ADMIN);
        implied || self.0.contains(privilege.flag())
    }
}

/// What is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Programs are loaded, now or when conntrack is loaded again, and namespaces looked into.
    All,
    /// No program is loaded (any more): what was loaded is read, and namespaces are looked into.
    Look,
    /// As [`Self::Look`], without what programs counted, and the kernel's log is read.
    Collect,
    /// Files are read that others may have kept for themselves.
    Read,
    /// Nothing that takes any.
    Rest,
}

impl Work {
    /// `writes`: files are written where root may, whoever owns the folder.
    fn takes(self, writes: bool, release: &str) -> CapabilitySet {
        let look = CapabilitySet::NET_ADMIN
            // Before Linux 5.8 also what the other two are since.
            | CapabilitySet::SYS_ADMIN
            // To read what programs counted, where a sysctl keeps that from others.
            | CapabilitySet::BPF
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::DAC_READ_SEARCH;
        let mut takes = match self {
            Self::All => look | CapabilitySet::PERFMON | CapabilitySet::SYSLOG,
            Self::Look => look,
            Self::Collect => (look | CapabilitySet::SYSLOG) & !CapabilitySet::BPF,
            Self::Read => CapabilitySet::DAC_READ_SEARCH,
            Self::Rest => CapabilitySet::empty(),
        };
        // Before Linux 5.11 memory of programs counts against a limit that it raises.
        if self == Self::All && version(release).is_none_or(|version| version < (5, 11)) {
            takes |= CapabilitySet::SYS_RESOURCE;
        }
        if writes {
            takes |= CapabilitySet::DAC_OVERRIDE;
        }
        takes
    }
}

/// `5.10.0-32-cloud-amd64`
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Gives up, in this thread and those that it starts, all capabilities that the work does not take,
/// and any way to new ones.
pub fn keep(work: Work, writes: bool) -> Result<()> {
    let takes = work.takes(writes, &crate::host::kernel_release());
    set_no_new_privs(true).context("cannot do without new privileges")?;
    unbound(takes).context("cannot drop capabilities from the bounding set")?;
    let sets = capabilities(None).context("cannot read which capabilities there are")?;
    let kept = CapabilitySets {
        effective: sets.effective & takes,
        permitted: sets.permitted & takes,
        // With what is taken from these two, it goes from the ambient set.
        inheritable: sets.inheritable & takes,
    };
    set_capabilities(None, kept).context("cannot drop capabilities")
}

/// Gives up all capabilities, for good, where that comes true without any; otherwise it keeps them.
pub fn try_without(enough: impl FnOnce() -> bool) -> Result<()> {
    let sets = capabilities(None).context("cannot read which capabilities there are")?;
    let none = CapabilitySets { effective: CapabilitySet::empty(), ..sets };
    set_capabilities(None, none).context("cannot lower capabilities")?;
    match enough() {
        true => keep(Work::Rest, false),
        false => set_capabilities(None, sets).context("cannot take capabilities up again"),
    }
}

/// Out of the bounding set. Without `CAP_SETPCAP`, as the second time, they stay there, where nothing reaches them: there
/// are no new privileges.
fn unbound(takes: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if takes.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last that this kernel knows.
            Err(Errno::INVAL) => return Ok(()),
            Err(Errno::PERM) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_keep_what_they_need() {
        let all = |release| Work::All.takes(false, release);
        for release in ["4.19.0", "5.4.0-26-generic", "5.10.0-32-amd64", "odd"] {
            let resource = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
            assert!(all(release).contains(resource), "{release}");
        }
        for release in ["5.11", "6.12.1", "7.3.4+deb13"] {
            assert!(!all(release).contains(CapabilitySet::SYS_RESOURCE), "{release}");
        }
        let listed = Privilege::ALL.into_iter().map(Privilege::flag);
        assert!(listed.into_iter().all(|flag| all("6.12.1").contains(flag)));
    }

    #[test]
    fn less_work_takes_no_more() {
        let [all, look, rest] =
            [Work::All, Work::Look, Work::Rest].map(|work| work.takes(false, "6.12.1"));
        assert!(all.contains(look) && look.contains(rest) && all != look && rest.is_empty());
        assert!(!all.intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::NET_RAW));
        assert_eq!(Work::Rest.takes(true, "6.12.1"), CapabilitySet::DAC_OVERRIDE);
    }

    #[test]
    fn what_is_needed_is_kept() {
        let seen = std::thread::spawn(|| {
            keep(Work::Read, true).unwrap();
            let sets = || capabilities(None).unwrap();
            let before = sets();
            let mut meanwhile = None;
            try_without(|| {
                meanwhile = Some(sets());
                false
            })
            .unwrap();
            let kept = sets();
            try_without(|| true).unwrap();
            (before, meanwhile.unwrap(), kept, sets())
        });
        let (before, meanwhile, kept, after) = seen.join().unwrap();
        assert_eq!(before, kept);
        assert!(meanwhile.effective.is_empty() && meanwhile.permitted == before.permitted);
        assert!(after.effective.is_empty() && after.permitted.is_empty());
    }

    #[test]
    fn a_thread_gives_up_for_good() {
        // On a thread of its own: what it gives up does not come back.
        let seen = std::thread::spawn(|| {
            keep(Work::Rest, false).unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            (status, Privileges::read())
        });
        let (status, privileges) = seen.join().unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(Privilege::ALL.into_iter().all(|privilege| !privileges.has(privilege)));
    }
}

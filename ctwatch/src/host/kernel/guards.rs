//! Settings of the kernel that keep programs out, whatever else is right: which are in force, and what an
//! error that comes of one is called.

use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

use super::privileges::{Privilege, Privileges, version};
use crate::{host::machine::files, record::measurement::Guard};

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// What was read of them; `None` is not there, or out of sight.
#[derive(Clone, Debug, Default)]
struct Settings {
    lockdown: Option<String>,
    kptr_restrict: Option<i64>,
    perf_event_paranoid: Option<i64>,
    /// Bytes that may be locked, where maps count as such.
    locked_memory: Option<u64>,
}

/// Those that are in force for this process.
pub fn in_force() -> Vec<Guard> {
    let number = |path: &str| files::text(path).ok()?.trim().parse().ok();
    let settings = Settings {
        lockdown: files::text(LOCKDOWN).ok(),
        kptr_restrict: number("/proc/sys/kernel/kptr_restrict"),
        perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
        locked_memory: locked_memory(),
    };
    settings.in_force(Privileges::read())
}

/// Linux 5.11 and later count maps against the memory of a cgroup instead:
/// <https://git.kernel.org/torvalds/c/97306be45fbe>.
fn locked_memory() -> Option<u64> {
    let is_counted =
        version(&crate::host::kernel_release()).is_some_and(|version| version < (5, 11));
    let may_lift =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    if is_counted && !may_lift { getrlimit(Resource::Memlock).current } else { None }
}

impl Settings {
    fn in_force(&self, privileges: Privileges) -> Vec<Guard> {
        let mut guards = Vec::new();
        // `none integrity [confidentiality]`
        if self.lockdown.as_deref().is_some_and(|line| line.contains("[confidentiality]")) {
            guards.push(Guard::Lockdown);
        }
        if self.kptr_restrict.is_some_and(|level| level >= 2) {
            guards.push(Guard::HiddenAddresses);
        }
        // Above 2, which is the most that Linux itself knows, Debian's and Ubuntu's kernels refuse all who lack it.
        if let Some(level) = self.perf_event_paranoid
            && level > 2
            && !privileges.has(Privilege::SysAdmin)
        {
            guards.push(Guard::PerfEventParanoid(level));
        }
        guards.extend(self.locked_memory.map(Guard::LockedMemory));
        guards
    }
}

/// An error of loading a program or making a map: where a guard in force is the cause, that alone.
pub fn explained(error: &str) -> String {
    cause(error).map_or_else(|| named(error), Guard::why)
}

/// With a name for the error that the C library has none for.
pub fn named(error: &str) -> String {
    let name = "this kernel cannot do that (ENOTSUPP)";
    error.replace("Unknown error 524 (os error 524)", name)
}

/// The guard in force that is the cause of an error, by all that the kernel says of it.
pub fn cause(error: &str) -> Option<Guard> {
    cause_of(error, &in_force())
}

fn cause_of(error: &str, guards: &[Guard]) -> Option<Guard> {
    let has = |words: &[&str]| words.iter().any(|words| error.contains(words));
    let is_refused = has(&["os error 1)", "os error 13)"]);
    let is_cause = |guard: &Guard| match guard {
        // <https://elixir.bootlin.com/linux/v6.12/source/kernel/trace/bpf_trace.c#L1451>: the helper is
        // not there for such programs, and the verifier says so in one way or the other.
        Guard::Lockdown => {
            has(&["cannot use helper bpf_probe_read", "unknown func bpf_probe_read"]) || is_refused
        }
        Guard::HiddenAddresses => false,
        Guard::PerfEventParanoid(_) => has(&["perf_event_open"]) && is_refused,
        // Programs count as maps do.
        Guard::LockedMemory(_) => has(&["map", "BPF_PROG_LOAD"]) && is_refused,
    };
    // It may have been explained in part before.
    guards.iter().copied().find(|guard| is_cause(guard) || has(&[&guard.why()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(settings: Settings) -> Vec<Guard> {
        settings.in_force(Privileges::none())
    }

    #[test]
    fn only_what_keeps_programs_out_is_a_guard() {
        let lockdown =
            |line: &str| Settings { lockdown: Some(line.to_owned()), ..Settings::default() };
        assert_eq!(in_force(Settings::default()), []);
        assert_eq!(in_force(lockdown("none [integrity] confidentiality\n")), []);
        assert_eq!(in_force(lockdown("none integrity [confidentiality]\n")), [Guard::Lockdown]);
        let kptr = |level| Settings { kptr_restrict: Some(level), ..Settings::default() };
        assert_eq!(in_force(kptr(1)), []);
        assert_eq!(in_force(kptr(2)), [Guard::HiddenAddresses]);
        let paranoid = |level| Settings { perf_event_paranoid: Some(level), ..Settings::default() };
        assert_eq!(in_force(paranoid(2)), []);
        assert_eq!(in_force(paranoid(3)), [Guard::PerfEventParanoid(3)]);
    }

    #[test]
    fn an_error_is_called_by_its_cause() {
        let verifier = "the program dropped: Invalid argument (os error 22); program of this type cannot \
                        use helper bpf_probe_read_kernel#113";
        let open = "perf_event_open failed: Permission denied (os error 13)";
        let map = "failed to create map TALLIES: Operation not permitted (os error 1)";
        assert_eq!(cause_of(verifier, &[Guard::Lockdown]), Some(Guard::Lockdown));
        assert_eq!(
            cause_of(verifier, &[Guard::PerfEventParanoid(3), Guard::LockedMemory(0)]),
            None
        );
        assert_eq!(
            cause_of(open, &[Guard::PerfEventParanoid(3)]),
            Some(Guard::PerfEventParanoid(3))
        );
        assert_eq!(cause_of(map, &[Guard::LockedMemory(65536)]), Some(Guard::LockedMemory(65536)));
        let load = "the `BPF_PROG_LOAD` syscall returned Operation not permitted (os error 1)";
        assert_eq!(cause_of(load, &[Guard::LockedMemory(65536)]), Some(Guard::LockedMemory(65536)));
        assert_eq!(cause_of(open, &[Guard::LockedMemory(65536)]), None);
        assert_eq!(cause_of(open, &[]), None);
        assert_eq!(cause_of("No such file or directory (os error 2)", &[Guard::Lockdown]), None);
    }

    #[test]
    fn an_errno_without_a_name_gets_one() {
        let said = explained("cannot hook early_drop: Unknown error 524 (os error 524)");
        assert_eq!(said, "cannot hook early_drop: this kernel cannot do that (ENOTSUPP)");
    }
}

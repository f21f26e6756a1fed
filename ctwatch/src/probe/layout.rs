//! Where things are in the running kernel, for the programs: from BTF, and from the kernel's symbols
//! where a plan needs those.

use std::path::Path;

use anyhow::{Result, bail};
use ctwatch_abi::Layout;

use super::{
    fexit::Trial,
    functions::{Functions, HookedFunction},
    plan::Plan,
    symbols,
    types::Types,
};
use crate::{
    host::{self, kernel::symbols::Symbols},
    record::measurement::Mechanism,
};

const FREE: &str = HookedFunction::Free.function();
const HOOK_SLOW: &str = "nf_hook_slow";

/// A layout, and for each part of it why it is not usable.
pub struct Resolved {
    pub layout: Layout,
    pub entries: Result<(), String>,
    pub drops: Result<(), String>,
    pub free: Result<(), String>,
    /// Conntrack's functions, as tracing programs are attached to them.
    pub fexit: Result<Functions, String>,
    /// The same, as probes are.
    pub kprobe: Result<Functions, String>,
    /// The number of the tracepoint for dropped packets; `None` where this kernel does not say.
    pub(super) drop_tracepoint: Option<u32>,
    /// That the kernel takes tracing programs, and what it takes them by.
    pub(super) trial: Option<Trial>,
    symbols: NamesNeeded,
}

/// Which of the kernel's symbols are yet to be looked for. Until somebody needs them they are taken to
/// be there.
#[derive(Clone, Copy, PartialEq)]
enum NamesNeeded {
    None,
    /// Those of the code that drops and frees.
    Code,
    /// Also those of the functions that probes are attached to, of which BTF does not know.
    All,
}

impl Resolved {
    /// What BTF tells, which is all that programs on functions need. Functions are looked for only
    /// where a mechanism is wanted that needs them.
    pub fn by_btf(wanted: impl Fn(Mechanism) -> bool) -> Self {
        let types = Types::of_this_kernel();
        let entries = types.clone().and_then(|types| types.entries.clone());
        let drops = types.clone().and_then(|types| types.netfilter_drop.clone());
        let drop_tracepoint = types.clone().ok().and_then(|types| types.drop_tracepoint);
        let layout = Layout {
            netfilter_drop: drops.clone().unwrap_or(0),
            pt_regs_sp: stack_pointer(),
            freed_before_told: u32::from(freed_before_told(&host::kernel_release())),
            ..entries.clone().unwrap_or_default()
        };
        let (by_fexit, by_kprobe) = (wanted(Mechanism::Fexit), wanted(Mechanism::Kprobe));
        let functions = match by_fexit || by_kprobe {
            true => types.and_then(Types::functions),
            false => Err("not looked for".to_owned()),
        };
        let trial = match &functions {
            Ok(functions) if by_fexit => Trial::of(functions).map(Some),
            _ => Ok(None),
        };
        let tried = trial.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
        let probed = functions.clone().or_else(|_| Ok(Functions::unknown()));
        Self {
            layout,
            entries: entries.map(|_| ()),
            drops: drops.map(|_| ()),
            drop_tracepoint,
            free: Ok(()),
            symbols: match functions.is_err() && by_kprobe {
                true => NamesNeeded::All,
                false => NamesNeeded::Code,
            },
            fexit: functions.and_then(|functions| tried.map(|()| functions)),
            kprobe: can_be_probed().and(probed),
            trial: trial.ok().flatten(),
        }
    }

    /// Looks for the symbols that this plan needs and that were not looked for before; true where that
    /// was so, and another plan may be in order.
    pub fn complete(&mut self, plan: &Plan) -> bool {
        let by = |wanted| plan.chosen.iter().any(|(_, mechanism)| *mechanism == wanted);
        let needed = match self.symbols {
            NamesNeeded::None => false,
            NamesNeeded::Code => by(Mechanism::Tracepoint),
            NamesNeeded::All => by(Mechanism::Tracepoint) || by(Mechanism::Kprobe),
        };
        if needed {
            self.look_for_symbols();
        }
        needed
    }

    /// Looks for all symbols, whether a plan needs them or not.
    pub fn look_for_symbols(&mut self) {
        let mut wanted = vec![HOOK_SLOW, FREE];
        if self.symbols == NamesNeeded::All {
            wanted.extend(
                HookedFunction::ALL
                    .map(HookedFunction::function)
                    .iter()
                    .filter(|name| **name != FREE),
            );
        }
        let symbols = symbols::find(&wanted).map_err(|error| format!("{error:#}"));
        let symbols = || symbols.as_ref().map_err(Clone::clone);
        let code = |name| symbols().and_then(|symbols| symbols.code(name));
        let (hook_slow, free) = (code(HOOK_SLOW), code(FREE));
        self.layout.nf_hook_slow = hook_slow.clone().unwrap_or_default();
        self.layout.nf_conntrack_free = free.clone().unwrap_or_default();
        self.drops = self.drops.clone().and(hook_slow.map(|_| ()));
        self.free = free.map(|_| ());
        if self.symbols == NamesNeeded::All && self.kprobe.is_ok() {
            self.kprobe =
                symbols().and_then(|symbols| named(symbols).map_err(|error| format!("{error:#}")));
        }
        self.symbols = NamesNeeded::None;
    }
}

fn can_be_probed() -> Result<(), String> {
    let places = [
        "/sys/bus/event_source/devices/kprobe",
        "/sys/kernel/tracing/kprobe_events",
        "/sys/kernel/debug/tracing/kprobe_events",
    ];
    match places.iter().any(|place| Path::new(place).exists()) {
        true => Ok(()),
        false => {
            Err("this kernel has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)".to_owned())
        }
    }
}

fn named(symbols: &Symbols) -> Result<Functions> {
    let module = symbols.in_module(FREE).unwrap_or(false);
    Functions::find(module, |hook| match symbols.in_module(hook.function()) {
        Some(_) => Ok(0),
        None => bail!("/proc/kallsyms has no function {}", hook.function()),
    })
}

/// Whether `kmem:kmem_cache_free` comes after the object was given back. It moved before that in
/// Linux 5.17, for this very reason, and nothing but the version tells. A kernel that moved it and
/// calls itself older gets wider bounds, not wrong ones.
/// <https://github.com/torvalds/linux/blob/v5.10/mm/slub.c#L3168>
fn freed_before_told(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 17),
        _ => true,
    }
}

/// Where the kernel's `struct pt_regs` keeps the stack pointer: it begins as what `ptrace` shows.
fn stack_pointer() -> u32 {
    #[cfg(target_arch = "x86_64")]
    let offset = std::mem::offset_of!(libc::user_regs_struct, rsp);
    #[cfg(target_arch = "aarch64")]
    let offset = std::mem::offset_of!(libc::user_regs_struct, sp);
    // No probe runs on any other: see `load::embedded`.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let offset = 0_usize;
    u32::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::freed_before_told;

    #[test]
    fn releases_before_and_after_the_tracepoint_moved() {
        for old in ["4.19.0-27-amd64", "5.10.0-32-cloud-amd64", "5.16.20", "", "next"] {
            assert!(freed_before_told(old), "{old}");
        }
        for new in ["5.17.0", "6.1.0-50-cloud-amd64", "6.12.117+deb13", "10.0"] {
            assert!(!freed_before_told(new), "{new}");
        }
    }
}

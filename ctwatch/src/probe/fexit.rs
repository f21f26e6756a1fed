//! The programs that know the kernel's types: on conntrack's functions and on a tracepoint. aya makes the
//! maps, what loads the programs is here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, generated::bpf_insn};

use super::{
    bpf::{self, ProgramTarget, TracedAt},
    functions::{Functions, HookedFunction},
    types::MODULE,
};

/// The object's programs with the maps that aya has made, ready to be loaded.
pub(super) struct Tracing {
    object: Object,
}

/// That the kernel took a program that does nothing for one of the functions: one that refuses it is
/// found out before anything is made that takes its time.
pub(super) struct Trial {
    /// Where the functions are a module's.
    btf: Option<OwnedFd>,
}

impl Trial {
    pub(super) fn of(functions: &Functions) -> Result<Self> {
        let btf = if functions.module { Some(bpf::module_btf(MODULE)?) } else { None };
        let trial = Self { btf };
        // Probes do without it.
        trial.target(functions, HookedFunction::Alloc)?;
        let target = trial.target(functions, HookedFunction::Free)?;
        bpf::try_tracing(target).with_context(|| cannot_hook(HookedFunction::Free))?;
        Ok(trial)
    }

    fn target(&self, functions: &Functions, hook: HookedFunction) -> Result<ProgramTarget<'_>> {
        let number = functions.get(hook).with_context(|| cannot_hook(hook))?;
        Ok(ProgramTarget { btf: self.btf(), number })
    }

    /// Of the object that has the functions' numbers.
    pub(super) fn btf(&self) -> Option<BorrowedFd<'_>> {
        self.btf.as_ref().map(AsFd::as_fd)
    }
}

fn cannot_hook(hook: HookedFunction) -> String {
    format!("cannot hook {}", hook.function())
}

/// A program that is loaded, and attached for as long as this lives and nobody pauses it.
pub(super) struct Traced {
    pub(super) name: &'static str,
    pub(super) at: TracedAt,
    program: OwnedFd,
    link: Option<OwnedFd>,
}

impl Traced {
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Detaches it, or attaches it again.
    pub(super) fn set_attached(&mut self, attached: bool) -> Result<()> {
        if attached != self.link.is_some() {
            self.link = if attached { Some(bpf::attach(self.program())?) } else { None };
        }
        Ok(())
    }
}

impl Tracing {
    pub(super) fn open(bytes: &[u8], ebpf: &Ebpf) -> Result<Self> {
        let mut object = Object::parse(bytes).context("the programs are not what was built")?;
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        let defined = std::mem::take(&mut object.maps);
        let made = ebpf.maps().filter_map(|(name, map)| {
            Some((name, data(map)?.fd().as_fd().as_raw_fd(), defined.get(name)?))
        });
        object.relocate_maps(made, &text)?;
        object.relocate_calls(&text)?;
        Ok(Self { object })
    }

    pub(super) fn attach(
        &self,
        name: &'static str,
        at: TracedAt,
        target: ProgramTarget<'_>,
    ) -> Result<Traced> {
        let program = bpf::load(name, self.code(name)?, &self.object.license, at, target)?;
        let link = Some(bpf::attach(program.as_fd())?);
        Ok(Traced { name, at, program, link })
    }

    fn code(&self, name: &str) -> Result<&[bpf_insn]> {
        let missing = || format!("the probes hold no program {name}");
        let program = self.object.programs.get(name).with_context(missing)?;
        let function = self.object.functions.get(&program.function_key()).with_context(missing)?;
        Ok(&function.instructions)
    }
}

/// Of the kinds of maps that these programs have.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

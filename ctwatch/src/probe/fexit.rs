//! The tracing programs on conntrack's functions: aya makes the maps, what loads the programs is
//! here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, generated::bpf_insn};

use super::{
    bpf::{self, EntryOrReturn, ProgramTarget},
    functions::{Functions, HookedFunction},
    types::MODULE,
};

/// The object's programs with the maps that aya has made, ready to be loaded.
pub(super) struct Tracing<'a> {
    object: Object,
    functions: &'a Functions,
    btf: Option<BorrowedFd<'a>>,
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
        let hook = HookedFunction::Free;
        let context = || format!("cannot hook {}", hook.function());
        let function = functions.get(hook).with_context(context)?;
        let target = ProgramTarget { btf: btf.as_ref().map(AsFd::as_fd), function };
        bpf::try_tracing(target).with_context(context)?;
        Ok(Self { btf })
    }
}

/// A program that is loaded and attached for as long as this lives.
pub(super) struct Traced {
    pub(super) name: &'static str,
    program: OwnedFd,
    _link: OwnedFd,
}

impl Traced {
    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl<'a> Tracing<'a> {
    pub(super) fn open(
        bytes: &[u8],
        ebpf: &Ebpf,
        functions: &'a Functions,
        trial: &'a Trial,
    ) -> Result<Self> {
        let mut object = Object::parse(bytes).context("the programs are not what was built")?;
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        let defined = std::mem::take(&mut object.maps);
        let made = ebpf.maps().filter_map(|(name, map)| {
            Some((name, data(map)?.fd().as_fd().as_raw_fd(), defined.get(name)?))
        });
        object.relocate_maps(made, &text)?;
        object.relocate_calls(&text)?;
        Ok(Self { object, functions, btf: trial.btf.as_ref().map(AsFd::as_fd) })
    }

    pub(super) fn attach(
        &self,
        name: &'static str,
        function: u32,
        when: EntryOrReturn,
    ) -> Result<Traced> {
        let target = ProgramTarget { btf: self.btf, function };
        let program = bpf::load(name, self.code(name)?, &self.object.license, when, target)?;
        let link = bpf::attach(program.as_fd())?;
        Ok(Traced { name, program, _link: link })
    }

    pub(super) fn functions(&self) -> &'a Functions {
        self.functions
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

//! Loading and attaching the programs. The only room that names aya, with [`super::read`].

use anyhow::{Context, Result, anyhow};
use aya::{Ebpf, EbpfLoader, programs::RawTracePoint};
use ctwatch_ebpf::Layout;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::plan::{Mechanism, Plan, Signal};

#[cfg(probes)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("CTWATCH_PROBES")));
#[cfg(not(probes))]
static OBJECT: Option<&[u8]> = None;

/// A program, and the tracepoint it belongs to.
struct Attachment {
    program: &'static str,
    tracepoint: &'static str,
    /// Attached where any of these is measured by tracepoints.
    serves: &'static [Signal],
}

/// In this order: at one tracepoint the first attached is run first.
const ATTACHMENTS: &[Attachment] = &[
    Attachment { program: "dropped", tracepoint: "kfree_skb", serves: &[Signal::Drops] },
    Attachment { program: "page_allocated", tracepoint: "mm_page_alloc", serves: &[Signal::Drops] },
    Attachment {
        program: "freed",
        tracepoint: "kmem_cache_free",
        serves: &[Signal::Insertions, Signal::Removals],
    },
    Attachment {
        program: "freed_missed",
        tracepoint: "kmem_cache_free",
        serves: &[Signal::Insertions, Signal::Removals],
    },
];

/// Whether this executable carries the programs at all.
pub fn embedded() -> Result<(), String> {
    match OBJECT {
        Some(_) => Ok(()),
        None => Err("this executable was built without probes (cargo xtask build)".to_owned()),
    }
}

/// Loads and attaches what the plan asks for. All of it is gone when the returned value is, or
/// when the process ends in any way: nothing is pinned.
pub(super) fn load(plan: &Plan, layout: &Layout) -> Result<Ebpf> {
    let object = OBJECT.context("this executable was built without probes")?;
    let mut ebpf = lean_loader()?
        .override_global("LAYOUT", layout, true)
        .load(object)
        .map_err(explain)
        .context("the kernel refused the probes' maps")?;
    for attachment in ATTACHMENTS {
        let wanted = attachment
            .serves
            .iter()
            .any(|signal| plan.mechanism(*signal) == Some(Mechanism::Tracepoint));
        if wanted {
            attach(&mut ebpf, attachment).with_context(|| {
                format!("cannot attach to tracepoint {}", attachment.tracepoint)
            })?;
        }
    }
    Ok(ebpf)
}

/// A loader that has not parsed the kernel's BTF.
///
/// `EbpfLoader::new` does so first of all, for CO-RE relocations that these programs do not have:
/// 30 ms and more memory than all the rest of ctwatch, of which allocation patterns give little
/// back. It takes an unreadable file for "no BTF", so for that moment no file can be opened. No
/// other thread runs yet.
fn lean_loader<'a>() -> Result<EbpfLoader<'a>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit })
        .context("cannot lower the limit of open files")?;
    let mut loader = EbpfLoader::new();
    setrlimit(Resource::Nofile, limit).context("cannot restore the limit of open files")?;
    loader.btf(None);
    Ok(loader)
}

fn attach(ebpf: &mut Ebpf, attachment: &Attachment) -> Result<()> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(attachment.program)
        .with_context(|| format!("the probes hold no program {}", attachment.program))?
        .try_into()?;
    program.load().map_err(explain)?;
    program.attach(attachment.tracepoint)?;
    Ok(())
}

/// aya's errors carry the verifier's whole log; its first lines name the reason.
fn explain(error: impl std::error::Error) -> anyhow::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    anyhow!("{}", text.lines().take(4).collect::<Vec<_>>().join("; "))
}

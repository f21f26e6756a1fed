//! Loading and attaching the programs. The only room that names aya, with [`super::running`].

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::Queue,
    programs::{KProbe, Program, RawTracePoint, loaded_links},
};
use ctwatch_abi::{
    Layout, MAX_NETNS, PLACES, REST,
    budget::Window,
    census::RECORDS,
    loading,
    top::{By, Seed, Wanted},
    trace::Filter,
};

use super::{
    bpf::{self, ProgramTarget, TracedAt},
    cpus,
    fexit::{Traced, Tracing},
    functions::HookedFunction,
    layout::Resolved,
    lean,
    object::{PACKED, object},
    plan::Plan,
    ticks::ticks_per_second,
    top::Shape,
    trace,
    types::MODULE,
    value::Value,
};
use crate::{
    host::{self, kernel::guards},
    record::measurement::{Mechanism, Signal},
};

/// Of the kernel's clock, at most: taken where it cannot be told, it leaves the lists a smaller budget.
const MOST_TICKS: u32 = 1000;

/// Room for three hundred loads of modules that were not read yet.
const LOADING_ROOM: u32 = 1 << 16;

/// A program, and where it is attached for what.
struct Attachment {
    program: &'static str,
    at: At,
    /// Where any of these is measured by any of those.
    signals: &'static [Signal],
    mechanisms: &'static [Mechanism],
}

#[derive(Clone, Copy)]
enum At {
    Tracepoint(&'static str),
    /// The kernel says why it drops a packet, or it does not; and the program that stands in for this one
    /// where the kernel takes none that knows its types.
    DropTracepoint {
        reasons: bool,
        raw: &'static str,
    },
    Function(HookedFunction, TracedAt),
    /// A probe; whether at the entry or the return is written in the program.
    Probe(HookedFunction),
}

const fn row(
    program: &'static str,
    at: At,
    signals: &'static [Signal],
    mechanisms: &'static [Mechanism],
) -> Attachment {
    Attachment { program, at, signals, mechanisms }
}

const fn with_reasons(raw: &'static str) -> At {
    At::DropTracepoint { reasons: true, raw }
}

const fn without_reasons(raw: &'static str) -> At {
    At::DropTracepoint { reasons: false, raw }
}

const ATTACHMENTS: &[Attachment] = {
    use At::{Function, Probe, Tracepoint};
    use HookedFunction::{Alloc, Clash, Confirm, EarlyDrop, Free, Insert};
    use Mechanism::{Fexit, Kprobe, Tracepoint as ByTracepoint};
    const DROPS: &[Signal] = &[Signal::Drops];
    const INSERTIONS: &[Signal] = &[Signal::Insertions];
    const REMOVALS: &[Signal] = &[Signal::Removals];
    const ENTRIES: &[Signal] = &[Signal::Insertions, Signal::Removals];
    &[
        row("page_allocated", Tracepoint("mm_page_alloc"), DROPS, &[Fexit, Kprobe, ByTracepoint]),
        row("dropped", with_reasons("dropped_raw"), DROPS, &[ByTracepoint]),
        row("dropped_bare", without_reasons("dropped_bare_raw"), DROPS, &[ByTracepoint]),
        row("refused", with_reasons("refused_raw"), DROPS, &[Fexit, Kprobe]),
        row("refused_bare", without_reasons("refused_bare_raw"), DROPS, &[Fexit, Kprobe]),
        row("freed", Tracepoint("kmem_cache_free"), ENTRIES, &[ByTracepoint]),
        row("freed_missed", Tracepoint("kmem_cache_free"), ENTRIES, &[ByTracepoint]),
        row("fx_full", Function(EarlyDrop, TracedAt::Entry), DROPS, &[Fexit]),
        row("fx_allocated", Function(Alloc, TracedAt::Exit), DROPS, &[Fexit]),
        row("fx_clash", Function(Clash, TracedAt::Exit), DROPS, &[Fexit]),
        row("fx_confirmed", Function(Confirm, TracedAt::Exit), DROPS, &[Fexit]),
        row("fx_confirming", Function(Confirm, TracedAt::Entry), INSERTIONS, &[Fexit]),
        row("fx_inserted", Function(Insert, TracedAt::Entry), INSERTIONS, &[Fexit]),
        row("fx_freed", Function(Free, TracedAt::Entry), REMOVALS, &[Fexit]),
        row("fx_freed_missed", Function(Free, TracedAt::Entry), REMOVALS, &[Fexit]),
        row("kp_early_drop", Probe(EarlyDrop), DROPS, &[Kprobe]),
        row("kr_early_drop", Probe(EarlyDrop), DROPS, &[Kprobe]),
        row("kp_clash", Probe(Clash), DROPS, &[Kprobe]),
        row("kr_clash", Probe(Clash), DROPS, &[Kprobe]),
        row("kp_confirming", Probe(Confirm), DROPS, &[Kprobe]),
        row("kr_confirmed", Probe(Confirm), DROPS, &[Kprobe]),
        row("kp_inserted", Probe(Insert), INSERTIONS, &[Kprobe]),
        row("kp_freed", Probe(Free), REMOVALS, &[Kprobe]),
    ]
};

/// Whether the kernel says what its kprobes miss.
pub fn probes_tell_misses() -> bool {
    bpf::probes_tell_misses().unwrap_or(false)
}

/// Whether this executable carries the programs at all.
pub fn embedded() -> Result<(), String> {
    match PACKED {
        Some(_) => Ok(()),
        // A kernel of 32 bits runs programs, but what they would read is laid out otherwise there.
        None if usize::BITS < u64::BITS => {
            Err(format!("ctwatch has no probes for {}: a CPU of 32 bits", std::env::consts::ARCH))
        }
        None => Err("this executable was built without probes (cargo xtask build)".to_owned()),
    }
}

/// What is wanted beside counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Who it is.
    pub lists: Wanted,
    /// Each of these refusals.
    pub trace: Option<Filter>,
}

/// The programs that run.
pub(super) struct LoadedProbes {
    pub(super) ebpf: Ebpf,
    /// For how many CPUs the maps are made.
    pub(super) cpus: usize,
    pub(super) traced: Vec<Traced>,
    /// Names of probes with their links' numbers, where they have links.
    pub(super) probes: Vec<(&'static str, Option<u32>)>,
}

/// A mechanism that the kernel refused.
#[derive(Debug)]
pub struct LoadRefused {
    /// `None`: what every mechanism needs.
    pub mechanism: Option<Mechanism>,
    pub error: anyhow::Error,
}

/// Loads and attaches what the plan asks for. All of it is gone when the returned value is, or
/// when the process ends in any way: nothing is pinned.
pub(super) fn load(
    plan: &Plan,
    resolved: &Resolved,
    asked: Asked,
) -> Result<LoadedProbes, LoadRefused> {
    let of_all = |error| LoadRefused { mechanism: None, error };
    let object = object().map_err(of_all)?;
    let cpus = cpus::online().map_err(of_all)?;
    let mut loaded = LoadedProbes {
        ebpf: maps(&object, resolved, asked, cpus).map_err(of_all)?,
        cpus,
        traced: Vec::new(),
        probes: Vec::new(),
    };
    make_room(&mut loaded.ebpf).map_err(of_all)?;
    let chosen = |signal: &Signal| plan.mechanism(*signal);
    let any = |mechanism| plan.chosen.iter().any(|(_, chosen)| *chosen == mechanism);
    let refused = |mechanism| move |error| LoadRefused { mechanism: Some(mechanism), error };
    let tracing = match any(Mechanism::Fexit) || resolved.drop_tracepoint.is_some() {
        true => Some(Tracing::open(&object, &loaded.ebpf).map_err(of_all)?),
        false => None,
    };
    let wanted = |attachment: &&Attachment| match attachment.program {
        "refused" | "refused_bare" => !asked.lists.is_none() || asked.trace.is_some(),
        "fx_confirming" => asked.lists.contains(By::Interface),
        // At every new flow: the counter of chains that are too long costs nothing.
        "fx_confirmed" | "kp_confirming" | "kr_confirmed" => asked.trace.is_some(),
        _ => true,
    };
    for attachment in ATTACHMENTS.iter().filter(wanted) {
        let mut mechanisms = attachment.signals.iter().filter_map(chosen);
        if let Some(by) = mechanisms.find(|by| attachment.mechanisms.contains(by)) {
            attach(&mut loaded, attachment, tracing.as_ref(), resolved).map_err(refused(by))?;
        }
    }
    Ok(loaded)
}

fn maps(object: &[u8], resolved: &Resolved, asked: Asked, cpus: usize) -> Result<Ebpf> {
    let mut layout = resolved.layout;
    let mut loader = lean::loader()?;
    let stripes = stripes(cpus)?;
    layout.stripe_mask = stripes - 1;
    layout.top_window = Window::of(ticks_per_second().unwrap_or(MOST_TICKS));
    loader.map_max_entries("TALLIES", stripes * PLACES);
    if !asked.lists.is_none() {
        let shape = Shape::of(cpus);
        layout.top_sets = u32::try_from(shape.sets)?;
        layout.top_wanted = asked.lists;
        layout.top_seed = Seed(host::secrets());
        loader.map_max_entries("TOP", u32::try_from(shape.all_sets())?);
    }
    let filter = asked.trace.map(Value);
    if let Some(filter) = &filter {
        loader.map_max_entries("TRACE", trace::ROOM).override_global("FILTER", filter, true);
        if filter.0.is_chosen != 0 {
            loader.map_max_entries("CHOSEN", trace::MOST_CHOSEN);
        }
    }
    let layout = Value(layout);
    loader
        .override_global("LAYOUT", &layout, true)
        .load(object)
        .map_err(explain)
        .context("the kernel refused the probes' maps")
}

/// Before the first event: each namespace gets one of these places.
fn make_room(ebpf: &mut Ebpf) -> Result<()> {
    for (name, places) in [("FREE", 0..MAX_NETNS), ("FREE_OF_STRANGERS", MAX_NETNS..REST)] {
        let free = ebpf.map_mut(name).with_context(|| format!("the probes hold no map {name}"))?;
        let mut free: Queue<_, u32> = Queue::try_from(free)?;
        for place in places {
            free.push(place, 0).map_err(explain).context("cannot make room for namespaces")?;
        }
    }
    Ok(())
}

/// The census' program and maps, and as little as can be of all the others.
pub(super) fn census(layout: &Layout) -> Result<Ebpf> {
    let mut loader = small_loader()?;
    let layout = Value(*layout);
    loader
        .map_max_entries("HELD", RECORDS)
        .override_global("LAYOUT", &layout, true)
        .load(&object()?)
        .map_err(explain)
        .context("the kernel refused the census' maps")
}

/// The programs that see modules being loaded, attached, and as little as can be of all the others.
pub(super) fn loading(layout: &loading::Layout) -> Result<Ebpf> {
    let mut loader = small_loader()?;
    let layout = Value(*layout);
    let mut ebpf = loader
        .map_max_entries("LOADING", LOADING_ROOM)
        .override_global("TASK", &layout, true)
        .load(&object()?)
        .map_err(explain)
        .context("the kernel refused the maps for what is loaded")?;
    raw_tracepoint(&mut ebpf, "module_asked", "module_request")?;
    raw_tracepoint(&mut ebpf, "module_loaded", "module_load")?;
    Ok(ebpf)
}

/// For those who need no map that is large.
fn small_loader<'a>() -> Result<EbpfLoader<'a>> {
    let mut loader = lean::loader()?;
    for map in ["NETNS", "TALLIES", "FREE", "FREE_OF_STRANGERS", "MARKS", "FRAMES", "PLANES"] {
        loader.map_max_entries(map, 1);
    }
    Ok(loader)
}

/// In which all CPUs count what happens in namespaces.
pub(super) fn stripes(cpus: usize) -> Result<u32> {
    Ok(ctwatch_abi::stripes(u32::try_from(cpus)?))
}

fn attach(
    loaded: &mut LoadedProbes,
    attachment: &Attachment,
    tracing: Option<&Tracing>,
    resolved: &Resolved,
) -> Result<()> {
    let name = attachment.program;
    match attachment.at {
        At::Tracepoint(tracepoint) => raw_tracepoint(&mut loaded.ebpf, name, tracepoint),
        At::DropTracepoint { reasons, raw } if reasons == (resolved.layout.netfilter_drop != 0) => {
            let typed = tracing.zip(resolved.drop_tracepoint).map(|(tracing, number)| {
                let target = ProgramTarget { btf: None, number };
                tracing.attach(name, TracedAt::Tracepoint, target)
            });
            match typed {
                Some(Ok(typed)) => loaded.traced.push(typed),
                // It counts the same, and costs more.
                Some(Err(why)) => raw_tracepoint(&mut loaded.ebpf, raw, "kfree_skb")
                    .with_context(|| format!("{why:#}"))?,
                None => raw_tracepoint(&mut loaded.ebpf, raw, "kfree_skb")?,
            }
            Ok(())
        }
        At::DropTracepoint { .. } => Ok(()),
        At::Function(hook, at) => {
            let tracing = tracing.context("no functions are known by BTF")?;
            let functions = resolved.fexit.as_ref().map_err(|why| anyhow!("{why}"))?;
            let Some(number) = functions.get(hook) else { return Ok(()) };
            let trial = resolved.trial.as_ref().context("it was not tried")?;
            let target = ProgramTarget { btf: trial.btf(), number };
            let traced = tracing.attach(name, at, target);
            loaded.traced.push(traced.with_context(|| on(hook))?);
            Ok(())
        }
        At::Probe(hook) => {
            let functions = resolved.kprobe.as_ref().map_err(|why| anyhow!("{why}"))?;
            if functions.get(hook).is_none() {
                return Ok(());
            }
            let link = probe(&mut loaded.ebpf, name, hook, functions.module);
            loaded.probes.push((name, link.with_context(|| on(hook))?));
            Ok(())
        }
    }
}

fn on(hook: HookedFunction) -> String {
    format!("cannot hook {}", hook.function())
}

fn raw_tracepoint(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<()> {
    let program: &mut RawTracePoint = program(ebpf, name)?.try_into()?;
    program
        .load()
        .and_then(|()| program.attach(tracepoint).map(|_| ()))
        .map_err(explain)
        .with_context(|| format!("cannot attach to tracepoint {tracepoint}"))
}

/// Attaches a probe, and returns the number of its link, where this kernel has links for probes
/// (Linux 5.15) and lets them be looked up.
fn probe(ebpf: &mut Ebpf, name: &str, hook: HookedFunction, module: bool) -> Result<Option<u32>> {
    let program: &mut KProbe = program(ebpf, name)?.try_into()?;
    program.load().map_err(explain)?;
    let plain = hook.function();
    // With its module's name, because a static function's may not be the only one of it; and
    // plainly, because not every kernel takes it that way.
    let attached = match module {
        true => {
            program.attach(format!("{MODULE}:{plain}"), 0).or_else(|_| program.attach(plain, 0))
        }
        false => program.attach(plain, 0),
    };
    attached.map_err(explain)?;
    let id = program.info()?.id();
    let mut links = loaded_links().filter_map(Result::ok);
    Ok(links.find(|link| link.program_id() == id).map(|link| link.id()))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("the probes hold no program {name}"))
}

/// aya's errors carry the verifier's whole log: its first lines say what was tried, the last ones why not.
pub(super) fn explain(error: impl std::error::Error) -> anyhow::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if let Some(guard) = guards::cause(&text) {
        return anyhow!("{}", guard.why());
    }
    let statistics = ["processed ", "stack depth ", "verification time "];
    let tells = |line: &&str| !statistics.iter().any(|begin| line.starts_with(begin));
    let lines: Vec<&str> = text.lines().filter(tells).collect();
    let (first, rest) = lines.split_at(lines.len().min(2));
    let last = &rest[rest.len().saturating_sub(5)..];
    anyhow!("{}", guards::named(&[first, last].concat().join("; ")))
}

//! What can be measured by what was chosen, how exactly, and what would make it better. Pure.

use std::collections::BTreeMap;

use super::report::{
    self, CapabilityReport, ConfigurationReport, Conntrack, Offer, Promise, Report, Tracking,
};
use crate::record::{
    facts::Form,
    measurement::{Guard, Measurement, Mechanism, Need, Offers, Signal},
    session::Header,
};

/// A report without anything that was found.
pub fn report(of: &Measurement) -> Report {
    let capabilities = of.capabilities.iter().map(|one| CapabilityReport {
        name: one.name,
        held: one.held,
        purpose: one.purpose,
    });
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: of.kernel.clone(),
        architecture: of.architecture,
        conntrack: match of.conntrack {
            Form::Absent => Conntrack::Absent,
            Form::BuiltIn => Conntrack::BuiltIn,
            Form::Module => Conntrack::Module,
            Form::Loaded => Conntrack::Loaded,
        },
        capabilities: capabilities.collect(),
        configuration: match &of.configuration {
            Ok(known) => ConfigurationReport {
                source: Some(known.source.clone()),
                why: None,
                options: known.options.clone(),
            },
            Err(why) => ConfigurationReport {
                source: None,
                why: Some(why.clone()),
                options: BTreeMap::new(),
            },
        },
        offers: Need::ALL
            .map(|need| Offer {
                name: need.name(),
                offered: of.offers.of(need).is_ok(),
                why: of.offers.of(need).err().map(str::to_owned),
            })
            .to_vec(),
        signals: Signal::ALL
            .map(|signal| report::SignalReport {
                name: signal.name(),
                mechanism: of.mechanism(signal).map(Mechanism::name),
            })
            .to_vec(),
        figures: figures(of),
        refused: of.refused.clone(),
        advice: advice(of),
        tracking: Tracking::default(),
        findings: Vec::new(),
        census: None,
        offline: None,
    }
}

/// A report of what other tools printed: nothing was measured there.
pub fn offline(kernel: String, conntrack: Form) -> Report {
    let none = Measurement {
        kernel,
        architecture: "",
        conntrack,
        capabilities: Vec::new(),
        configuration: Err("this is of what other tools printed".to_owned()),
        offers: Offers::new(),
        chosen: Vec::new(),
        refused: Vec::new(),
        guards: Vec::new(),
    };
    let (offers, figures, advice, signals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    Report { offers, figures, advice, signals, ..report(&none) }
}

/// A report of a recording: what could have been measured there is not in it.
pub fn past(header: &Header, conntrack: Form) -> Report {
    let why = "this is of a recording".to_owned();
    let none = Measurement {
        kernel: header.kernel.clone(),
        architecture: "",
        conntrack,
        capabilities: Vec::new(),
        configuration: Err(why),
        offers: Offers::new(),
        chosen: Vec::new(),
        refused: Vec::new(),
        guards: Vec::new(),
    };
    let signals = Signal::ALL.map(|signal| {
        let measured = header.mechanisms.iter().find(|of| of.signal == signal.name());
        let mechanism = measured.and_then(|of| of.mechanism.as_deref());
        let known = Mechanism::ALL.into_iter().find(|known| Some(known.name()) == mechanism);
        report::SignalReport { name: signal.name(), mechanism: known.map(Mechanism::name) }
    });
    Report {
        offers: Vec::new(),
        figures: Vec::new(),
        advice: Vec::new(),
        signals: signals.to_vec(),
        ..report(&none)
    }
}

/// What each figure is worth by what was chosen; docs/exactness.md says it at length.
fn figures(of: &Measurement) -> Vec<Promise> {
    use Mechanism::{Counters, Fexit, Kprobe, Tracepoint};
    const EXACT: &str = "exact";
    const NONE: &str = "unavailable";
    let kprobe_misses = of.offers.of(Need::KprobeMisses).is_ok();
    let counters = of.offers.of(Need::Counters).is_ok();
    let drops = of.mechanism(Signal::Drops);
    let table_full = match drops {
        Some(Fexit) => EXACT,
        Some(Kprobe) => "exact, the counters being a second witness",
        Some(Tracepoint) => "exact, unless invalid packets or a shortage of memory leave a doubt",
        Some(Counters) => "upper bound: full table, no memory and tracker together",
        _ => NONE,
    };
    let confirm = match drops {
        Some(Fexit | Kprobe) => EXACT,
        Some(Tracepoint) => "exact without NAT; with it, exact together with the other",
        Some(Counters) => "upper bound: both together",
        _ => NONE,
    };
    let entries = |signal| match of.mechanism(signal) {
        Some(Fexit | Tracepoint) => EXACT,
        Some(Kprobe) if kprobe_misses => "exact, or bounds by what the kernel says was missed",
        Some(Kprobe) => "lower bound: this kernel does not say what kprobes miss",
        Some(Counters) => "exact while insert - delete_list is what is there, else lower bound",
        _ => NONE,
    };
    let counted = if counters { EXACT } else { NONE };
    let figure = |name, exactness| Promise { name, exactness };
    vec![
        figure("table_full", table_full),
        figure(
            "no_memory, tracker",
            match drops {
                Some(Fexit | Kprobe) => "exact where only one of them can be, otherwise bounds",
                Some(_) => "exact where 0, otherwise upper bound",
                None => NONE,
            },
        ),
        figure("clash, nat_exhausted", confirm),
        figure("chain_too_long", counted),
        figure("early_drop, invalid", counted),
        figure("insertions", entries(Signal::Insertions)),
        figure("removals", entries(Signal::Removals)),
    ]
}

/// What somebody could do to make it better.
fn advice(of: &Measurement) -> Vec<String> {
    let mut advice = Vec::new();
    let mut say = |words: &str| advice.push(words.to_owned());
    let lacking: Vec<&str> =
        of.capabilities.iter().filter(|one| !one.held).map(|one| one.name).collect();
    if !lacking.is_empty() {
        say(&format!("run it as root, or with {}", lacking.join(", ")));
    }
    let best = of.mechanism(Signal::Drops) == Some(Mechanism::Fexit);
    for guard in of.guards.iter().filter(|_| !best) {
        say(&guard.advice());
    }
    // A better kernel would not help there.
    let is_locked_down = of.guards.contains(&Guard::Lockdown);
    if of.offers.of(Need::Bpf).is_ok() && !best && !is_locked_down {
        match (of.offers.of(Need::EntryLayout), of.offers.of(Need::Fexit)) {
            (Err(_), _) => say(
                "a kernel with CONFIG_DEBUG_INFO_BTF: without it nobody knows where in an entry \
                 to look, and the counters are all there is",
            ),
            (_, Err(_)) => {
                say("a kernel that lets programs be attached to conntrack's functions by BTF \
                 (Linux 5.15 with CONFIG_DEBUG_INFO_BTF_MODULES, where conntrack is a module): \
                 they cost least and miss nothing")
            }
            _ => {}
        }
    }
    if best && of.conntrack == Form::Module {
        say("note: programs by BTF hold the module, so nf_conntrack cannot be unloaded while \
             ctwatch watches; it lets go when it ends (--mechanism kprobe does not hold it)");
    }
    if of.conntrack == Form::Absent {
        say("note: watch waits for nf_conntrack to be loaded, and loads nothing itself");
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen where these are missing.
    fn measurement(missing: &[Need], chosen: &[(Signal, Mechanism)]) -> Measurement {
        let mut offers = Offers::new();
        for need in Need::ALL {
            let fact = if missing.contains(&need) { Err("no".to_owned()) } else { Ok(()) };
            offers.set(need, fact);
        }
        Measurement {
            kernel: "6.12".to_owned(),
            architecture: "x86_64",
            conntrack: Form::BuiltIn,
            capabilities: Vec::new(),
            configuration: Err("hidden".to_owned()),
            offers,
            chosen: chosen.to_vec(),
            refused: Vec::new(),
            guards: Vec::new(),
        }
    }

    fn by(mechanism: Mechanism) -> [(Signal, Mechanism); 3] {
        [Signal::Drops, Signal::Insertions, Signal::Removals].map(|signal| (signal, mechanism))
    }

    fn promises(missing: &[Need], chosen: &[(Signal, Mechanism)]) -> Vec<&'static str> {
        let figures = figures(&measurement(missing, chosen));
        figures.into_iter().map(|figure| figure.exactness).collect()
    }

    #[test]
    fn promises_follow_from_what_was_chosen() {
        let best = promises(&[], &by(Mechanism::Fexit));
        assert_eq!((best[0], best[2], best[5]), ("exact", "exact", "exact"));
        let counters = [(Signal::Drops, Mechanism::Counters)];
        let least = promises(&[Need::Bpf, Need::EntryCounts], &counters);
        assert!(least[0].starts_with("upper bound") && least[5] == "unavailable", "{least:?}");
        assert_eq!(least[4], "exact", "counters have these of their own");
        let old = promises(&[Need::Bpf], &by(Mechanism::Counters));
        assert!(old[5].starts_with("exact while") && old[5] == old[6], "{old:?}");
        let probes = promises(&[Need::KprobeMisses], &by(Mechanism::Kprobe));
        assert!(probes[5].starts_with("lower bound"), "{probes:?}");
        let nothing = promises(&Need::ALL, &[]);
        assert!(nothing.iter().all(|promise| *promise == "unavailable"), "{nothing:?}");
    }

    #[test]
    fn advice_is_for_what_is_missing() {
        let of = |missing: &[Need], conntrack| {
            let best = by(Mechanism::Fexit);
            let chosen = if missing.contains(&Need::Fexit) { &[][..] } else { &best[..] };
            advice(&Measurement { conntrack, ..measurement(missing, chosen) })
        };
        assert!(of(&[], Form::BuiltIn).is_empty());
        assert!(of(&[], Form::Module)[0].contains("cannot be unloaded"));
        assert!(of(&[Need::Fexit], Form::Module)[0].contains("BTF_MODULES"));
        assert!(
            of(&[Need::Fexit, Need::EntryLayout], Form::Module)[0]
                .contains("CONFIG_DEBUG_INFO_BTF:")
        );
        assert!(of(&Need::ALL, Form::Absent)[0].contains("waits for"));
    }
}

//! What an event costs with each mechanism, beside none, all in one run. Nothing here fails for
//! being slow: what comes out goes into the docs.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flood, Flows, Protocol},
};

use crate::{
    On, Test,
    mechanism::{self, Mechanism},
    test,
    watch::Watch,
};

pub(crate) const TESTS: &[Test] = &[test(On::OnceAlone, "what_each_mechanism_costs", cost)];

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const ROUNDS: u64 = 3;
const PACKETS: u64 = 20_000;

/// What was spent with one mechanism.
#[derive(Default)]
struct Spent {
    inserting: Duration,
    refusing: Duration,
    /// By program: runs, and the time they took by the kernel's own statistics.
    programs: BTreeMap<String, (u64, Duration)>,
}

fn cost() -> Result<()> {
    let mut ways = vec![None];
    ways.extend(mechanism::asked_for().0.into_iter().map(Some));
    let mut spent: Vec<Spent> = ways.iter().map(|_| Spent::default()).collect();
    let mut lab = Lab::new(Plan::default())?;
    let flows = Flows { sources: 1000, services: 10, ..Flows::of(Family::V4, Protocol::Udp) };
    let mut first = 0;
    let mut send = |lab: &Lab| {
        first += 1 << 24;
        lab.send(&Flood { first, ..Flood::of(flows, PACKETS) }).map(|sent| sent.elapsed)
    };
    fs::write(STATISTICS, "1").with_context(|| format!("cannot write {STATISTICS}"))?;
    for _ in 0..ROUNDS {
        for (way, spent) in ways.iter().zip(&mut spent) {
            let watch = match way {
                Some(mechanism) => {
                    mechanism::set(*mechanism);
                    Some(Watch::start(&[])?)
                }
                None => None,
            };
            lab.set_limit(1_000_000)?;
            spent.inserting += send(&lab)?;
            lab.set_limit(100)?;
            spent.refusing += send(&lab)?;
            for program in aya::programs::loaded_programs().flatten() {
                let name = String::from_utf8_lossy(program.name()).into_owned();
                let sum = spent.programs.entry(name).or_default();
                sum.0 += program.run_count();
                sum.1 += program.run_time();
            }
            watch.map(Watch::stop).transpose()?;
            lab.router().run(&["conntrack", "-F"])?;
        }
    }
    fs::write(STATISTICS, "0")?;
    let per_packet = |time: Duration| time.as_secs_f64() * 1e6 / (ROUNDS * PACKETS) as f64;
    let (base_new, base_refused) = (per_packet(spent[0].inserting), per_packet(spent[0].refusing));
    // Rows of their own, whatever the harness has begun to print.
    println!();
    for (way, spent) in ways.iter().zip(&spent) {
        let name = way.map_or("unwatched", Mechanism::name);
        let (new, refused) = (per_packet(spent.inserting), per_packet(spent.refusing));
        let ran: Vec<String> = spent
            .programs
            .iter()
            .filter(|(_, (runs, _))| *runs > 0)
            .map(|(program, (runs, time))| {
                let each = time.as_nanos() / u128::from(*runs);
                let often = *runs as f64 / (2 * ROUNDS * PACKETS) as f64;
                format!("{program} {each} ns x {often:.2}")
            })
            .collect();
        let (of_new, of_refused) = (new / base_new, refused / base_refused);
        println!(
            "cost | {name} | {new:.1} | {of_new:.2} | {refused:.1} | {of_refused:.2} | {} |",
            ran.join(", ")
        );
        let programs = way.is_some_and(Mechanism::has_programs);
        ensure!(ran.is_empty() != programs, "{name} ran {ran:?}");
    }
    Ok(())
}

//! What is read on a machine that tracks, drops and has rules can be recorded.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use ctwatch::{
    host::netns::visit::Source,
    observe::{
        sampler::{Collector, Means, Scope},
        survey::survey,
        wanted::Whose,
    },
};
use ctwatch_lab::{
    Lab, Plan,
    traffic::{Family, Flood, Flows, Protocol},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{On, Test, test};

pub(crate) const TESTS: &[Test] =
    &[test(On::Once, "what_is_read_here_is_recorded", recorded).anywhere()];

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<()> {
    let line = serde_json::to_string(value)?;
    let read: T = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(read == *value, "{value:?} became {read:?} by {line}");
    Ok(())
}

fn recorded() -> Result<()> {
    let mut lab = Lab::new(Plan::fresh())?;
    lab.set_limit(200)?;
    lab.send(&Flood::of(Flows::of(Family::V4, Protocol::Udp), 1000))?;
    let router = lab.router();
    let line = "iptables-legacy -A FORWARD -s 192.0.2.0/24 -m conntrack --ctstate INVALID -j DROP";
    router.run(&line.split(' ').collect::<Vec<_>>())?;
    let means = Means {
        source: Source::Ctnetlink,
        probes: None,
        scope: Scope::All,
        whose: Whose::All,
        only_judged: false,
        cookies: true,
    };
    let collector = Collector::start(means)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let sample = runtime.block_on(collector.request(true, true)?)??;
    again(&sample)?;
    let is_router = |name: &Option<String>| name.as_deref() == Some(router.name());
    let table = sample.tables.iter().find(|table| is_router(&table.name)).context("no router")?;
    let drops = table.counters.map_or(0, |sums| sums.drop);
    ensure!(drops > 0 && table.entries > Some(0), "{table:?}");
    let facts = survey(Scope::All, Whose::All, Source::Ctnetlink, true, true)?;
    again(&facts)?;
    let of_it = facts.namespaces.iter().find(|of| is_router(&of.name)).context("no router")?;
    for (rules, by) in [(&of_it.nft, "nft"), (&of_it.legacy, "iptables")] {
        let rules = rules.as_ref().map_err(|why| anyhow::anyhow!("{by}: {why}"))?;
        ensure!(rules.iter().any(|table| !table.chains.is_empty()), "{by}: {rules:?}");
    }
    Ok(())
}

//! The counters at two moments, as a session that is watched without programs sees them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::look::Look;
use crate::{
    commands::setup,
    host::{
        kernel::modules,
        netfilter::procstat,
        netns::visit::{Source, entry_counts},
    },
    observe::{
        event::Event,
        sampler::Means,
        session::{Beginning, Session, Wishes},
    },
    record::{
        measurement::{Mechanism, Signal},
        sample::Sample,
        session::{Epoch, FORMAT, Header, Measured},
    },
};

/// What was seen of the table.
pub(super) struct Watched {
    pub(super) header: Box<Header>,
    pub(super) epoch: Epoch,
    pub(super) first: Box<Sample>,
    pub(super) last: Box<Sample>,
}

/// `None`: conntrack is not there.
pub(super) async fn watched(look: &Look, interval: Duration) -> Result<Option<Watched>> {
    if modules::presence() == modules::Presence::Absent {
        return Ok(None);
    }
    if let modules::Presence::OutOfSight(why) = modules::presence() {
        bail!("{why}");
    }
    let header = header(look.source, interval)?;
    let means = Means {
        source: look.source,
        probes: None,
        scope: look.scope.clone(),
        whose: look.whose,
        only_judged: false,
        cookies: look.cookies,
    };
    let wishes = Wishes {
        interval,
        count: Some(1),
        loading: false,
        most: 0,
        by: Vec::new(),
        insertions: false,
    };
    const UNLOADED: &str = "nf_conntrack was unloaded while it was read";
    let mut beginning = Some(Beginning { means, header, census: None });
    let prepare = move || beginning.take().context(UNLOADED);
    let mut session = Session::new(wishes, prepare);
    let mut begun = None;
    let mut last = None;
    loop {
        let until = tokio::time::Instant::from_std(look.until.max(Instant::now()));
        let event = tokio::time::timeout_at(until, session.next()).await;
        match event.context("the counters could not be read in time")?? {
            Event::Begin { header, epoch, sample, .. } => begun = Some((header, epoch, sample)),
            Event::Tick { sample, .. } => last = Some(sample),
            Event::Absent { .. } | Event::Gone => bail!(UNLOADED),
            Event::End => break,
            _ => {}
        }
    }
    let (header, epoch, first) = begun.context(UNLOADED)?;
    let last = last.context(UNLOADED)?;
    Ok(Some(Watched { header, epoch, first, last }))
}

/// By what the kernel counts itself, as far as asking for it loads nothing.
fn header(source: Source, interval: Duration) -> Result<Header> {
    let by_list = procstat::counters();
    ensure!(
        source == Source::Ctnetlink || by_list.is_ok(),
        "only nf_conntrack_netlink has the counters here, and asking for them would load it, or \
         takes CAP_NET_ADMIN"
    );
    let entries = entry_counts(source);
    let mechanism = |signal| match signal {
        Signal::Drops => Some(Mechanism::Counters),
        Signal::Insertions | Signal::Removals => entries.is_ok().then_some(Mechanism::Counters),
        Signal::Table => Some(match source {
            Source::Ctnetlink => Mechanism::Ctnetlink,
            Source::Procfs => Mechanism::Procfs,
        }),
    };
    let mechanisms = Signal::ALL.map(|signal| Measured {
        signal: signal.name().to_owned(),
        mechanism: mechanism(signal).map(|by| by.name().to_owned()),
    });
    let origin = setup::origin();
    Ok(Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: origin.kernel,
        boot_id: origin.boot_id,
        interval,
        mechanisms: mechanisms.to_vec(),
        notes: Vec::new(),
        top_bytes: None,
    })
}

//! `ctwatch watch`: sample, model, render, once a tick.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};

use super::{
    ABSENT, is_closed_pipe, loading::Loading, setup, signals::Signals, size, writer::Writer,
};
use crate::{
    cli::{self, Output, WatchArgs},
    host::{
        kernel::modules::{self, Life, Presence},
        machine::zone,
    },
    model::{KEPT_UP, Model, Snapshot, census::Taken},
    observe::{
        census::{Census, Question, Way},
        sampler::{Collector, Means},
    },
    output::{
        aside, interruption, json,
        text::{Style, Text, Tops},
    },
    record::{
        sample::Sample,
        session::{Epoch, Header},
    },
};

/// How often the first and the last reading are tried again for one in which nothing happened
/// meanwhile, and for how long at most.
const STILL_TRIES: u32 = 20;
const STILL_WITHIN: Duration = Duration::from_millis(250);
/// A reading that takes longer is spoken of.
const SLOW: Duration = Duration::from_secs(5);
/// How often it is looked whether conntrack is (still) there.
const PULSE: Duration = Duration::from_millis(200);

pub async fn run(args: WatchArgs) -> Result<()> {
    let signals = Signals::new()?;
    let loading = Loading::new(args.mechanism);
    let writer = Writer::start()?;
    let left = args.count();
    let mut watch = Watch { left, args, signals, writer, loading, lives: 0, last_seen: None };
    watch.run().await
}

struct Watch {
    args: WatchArgs,
    signals: Signals,
    writer: Writer,
    loading: Loading,
    /// Ticks to go, where they are counted.
    left: Option<u64>,
    /// How many lives of the table have been watched.
    lives: u32,
    /// When it was last read.
    last_seen: Option<Instant>,
}

/// How one life of the table was left.
#[derive(PartialEq)]
enum End {
    /// All that was asked for is done.
    Done,
    /// Conntrack was unloaded, and perhaps loaded again.
    Unloaded,
}

impl Watch {
    async fn run(&mut self) -> Result<()> {
        loop {
            let Some(life) = self.wait_for_conntrack().await? else { return Ok(()) };
            let outcome = self.life(life).await;
            match outcome {
                Ok(End::Done) => return Ok(()),
                Ok(End::Unloaded) => {}
                // It went while it was being looked at.
                Err(error) if modules::life() == Some(life) || is_closed_pipe(&error) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// Watches one life of the table: totals, and what is attached to the module, are of that one.
    async fn life(&mut self, life: Life) -> Result<End> {
        let (means, header) = setup::prepare(&self.args)?;
        let mut counting = Counting::new(&self.args, &means);
        let collector = Collector::start(means)?;
        let mut model = Model::with_tops(self.args.tops(), &self.args.by());
        let mut screen = Screen::new(&self.args, header);
        let reading = still_sample(&collector);
        let (first, mut stop) = self.sample(&collector, &mut screen, reading).await?;
        let Some(first) = first else { return Ok(End::Done) };
        if modules::life() != Some(life) {
            return Ok(End::Unloaded);
        }
        self.lives += 1;
        let epoch = Epoch { number: self.lives, gap: self.last_seen.map(|seen| seen.elapsed()) };
        self.last_seen = Some(Instant::now());
        let snapshot = model.advance(&first);
        counting.look(&snapshot);
        stop |= self.put(screen.start(&snapshot, epoch)?).await?;
        // Who had conntrack loaded, which is there, can no longer be seen: that was not urgent.
        self.loading.start();
        let every = self.args.interval();
        let mut ticks = interval_at(Instant::now() + every, every);
        // After a pause (a stopped terminal, a suspended machine) one tick, not all that were
        // missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Between lines that are far apart, counters are read all the same.
        let mut keeping = interval_at(Instant::now() + KEPT_UP, KEPT_UP);
        keeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<Snapshot> = None;
        loop {
            let turn = tokio::select! {
                biased;
                () = self.signals.any(), if !stop => Turn::Stop,
                () = std::future::ready(()), if stop => Turn::Stop,
                counted = counting.done() => {
                    match counted {
                        Ok(census) => model.take_in(census),
                        Err(why) => {
                            stop |= self.put(screen.note(&format!("no census: {why:#}"))?).await?;
                        }
                    }
                    continue;
                }
                _ = pulse.tick() => Turn::Look,
                _ = ticks.tick() => Turn::Tick,
                _ = keeping.tick(), if every > KEPT_UP => Turn::Keep,
            };
            for note in self.loading.look() {
                stop |= self.put(screen.note(&note)?).await?;
            }
            let mut alive = modules::life() == Some(life);
            if alive && turn == Turn::Keep {
                let reading = collector.sample();
                let (sample, signalled) = self.sample(&collector, &mut screen, reading).await?;
                stop |= signalled;
                alive = modules::life() == Some(life);
                if let Some(sample) = sample.filter(|_| alive) {
                    model.keep_up(&sample);
                }
            } else if alive && turn != Turn::Look {
                let mut stops = turn == Turn::Stop || self.left == Some(1);
                // Of the last one, nothing is to be between entries and what was counted.
                let reading = async {
                    match stops {
                        true => still_sample(&collector).await,
                        false => collector.changes().await,
                    }
                };
                let (sample, signalled) = self.sample(&collector, &mut screen, reading).await?;
                stop |= signalled;
                // What was read while it went is of nothing.
                alive = modules::life() == Some(life);
                if alive {
                    match sample {
                        Some(sample) => {
                            let snapshot = model.advance(&sample);
                            self.last_seen = Some(Instant::now());
                            counting.look(&snapshot);
                            let line = screen.tick(&snapshot, epoch, &self.loading)?;
                            stop |= self.put(line).await?;
                            self.left = self.left.map(|left| left - 1);
                            last = Some(snapshot);
                        }
                        // It did not come, and a signal did.
                        None => stops = true,
                    }
                    if stops {
                        if let Some(snapshot) = &last {
                            self.put(screen.finish(snapshot)?).await?;
                        }
                        return Ok(End::Done);
                    }
                }
            }
            if !alive {
                if let Some(snapshot) = &last {
                    stop |= self.put(screen.finish(snapshot)?).await?;
                }
                let done = stop || turn == Turn::Stop;
                return Ok(if done { End::Done } else { End::Unloaded });
            }
        }
    }

    /// To standard output. Whether a signal came meanwhile.
    async fn put(&mut self, bytes: Vec<u8>) -> Result<bool> {
        self.writer.write(bytes, &mut self.signals).await
    }

    /// One reading, however long it takes: after a while it is said which namespace does not answer.
    /// And whether a signal came meanwhile; then it is waited for no longer than that. `None` where it
    /// did not come.
    async fn sample(
        &mut self,
        collector: &Collector,
        screen: &mut Screen,
        reading: impl Future<Output = Result<Sample>>,
    ) -> Result<(Option<Sample>, bool)> {
        let mut reading = std::pin::pin!(reading);
        let mut stop = false;
        loop {
            tokio::select! {
                biased;
                sample = &mut reading => return sample.map(|sample| (Some(sample), stop)),
                () = self.signals.any(), if !stop => stop = true,
                () = tokio::time::sleep(SLOW) => {
                    let gone = if stop { "; the figures before are the last" } else { "" };
                    let note = format!("{}{gone}", slow(collector));
                    let told = self.put(screen.note(&note)?).await?;
                    if stop || told {
                        return Ok((None, true));
                    }
                }
            }
        }
    }

    /// `None` when a signal came first.
    async fn wait_for_conntrack(&mut self) -> Result<Option<Life>> {
        if let Some(life) = present()? {
            return Ok(Some(life));
        }
        // Before it is said to be absent: who loads it is to be seen.
        self.loading.start();
        if let Some(life) = present()? {
            return Ok(Some(life));
        }
        let what = if self.lives > 0 { "nf_conntrack was unloaded" } else { ABSENT };
        aside::say(&format!(
            "{what}: nothing is tracked, and conntrack drops nothing; waiting for it"
        ));
        loop {
            tokio::select! {
                () = tokio::time::sleep(PULSE) => {}
                () = self.signals.any() => return Ok(None),
            }
            let life = present()?;
            for note in self.loading.look() {
                aside::say(&note);
            }
            if let Some(life) = life {
                return Ok(Some(life));
            }
        }
    }
}

/// `None` where it can be waited for: what cannot be seen would be waited for in vain.
fn present() -> Result<Option<Life>> {
    match modules::presence() {
        Presence::Loaded(life) => Ok(Some(life)),
        Presence::Absent => Ok(None),
        Presence::OutOfSight(why) => bail!("{why}"),
    }
}

/// Censuses while a table is saturated, as often as they may be taken.
struct Counting {
    question: Option<(Way, bool, Question)>,
    /// Also where no table is saturated.
    always: bool,
    census: Option<Census>,
    answer: Option<oneshot::Receiver<Result<Taken>>>,
    due: Instant,
}

/// A census may take no more than this share of one CPU.
const SHARE: u32 = 100;
/// Nobody reads faster than that.
const SOONEST: Duration = Duration::from_secs(1);

impl Counting {
    fn new(args: &WatchArgs, means: &Means) -> Self {
        let way = match args.mechanism {
            cli::Mechanism::Counters => Way::NoProgram,
            _ => Way::Best,
        };
        let by = args.by().into_iter().filter(|by| by.is_of_entries());
        let (scope, whose) = (means.scope.clone(), means.whose);
        let (by, most) = (by.collect(), args.tops());
        let question = Question { by, most, scope, whose, only_judged: true };
        Self {
            question: (args.tops() > 0).then_some((way, means.cookies, question)),
            always: args.top.is_some(),
            census: None,
            answer: None,
            due: Instant::now(),
        }
    }

    /// Asks for one where it is wanted and due.
    fn look(&mut self, snapshot: &Snapshot) {
        let wanted =
            self.always || snapshot.tables.iter().any(|table| table.saturated && table.is_judged);
        if !wanted || self.answer.is_some() || Instant::now() < self.due {
            return;
        }
        if let Some((way, cookies, question)) = self.question.take() {
            self.census = Census::start(way, cookies, question).ok();
        }
        self.answer = self.census.as_ref().and_then(|census| census.ask().ok());
    }

    /// Waits for the one that was asked for. After a failure there is no other.
    async fn done(&mut self) -> Result<Taken> {
        let Some(answer) = &mut self.answer else { return std::future::pending().await };
        let answer = answer.await;
        self.answer = None;
        let taken = answer.context("the thread of the census has ended").flatten();
        match &taken {
            Ok(taken) => self.due = Instant::now() + (taken.cpu * SHARE).max(SOONEST),
            Err(_) => self.census = None,
        }
        taken
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Look,
    Tick,
    /// What nobody is shown.
    Keep,
    Stop,
}

/// Totals count from the first reading to the last. The number of entries and what the probes counted
/// are not read at one moment, so where something happens in between, it is read again.
async fn still_sample(collector: &Collector) -> Result<Sample> {
    let begin = Instant::now();
    let mut sample = collector.sample().await?;
    for _ in 1..STILL_TRIES {
        if sample.is_still() || begin.elapsed() > STILL_WITHIN {
            break;
        }
        sample = collector.sample().await?;
    }
    Ok(sample)
}

/// Where snapshots go, as what was asked for.
struct Screen {
    header: Header,
    text: Option<Text>,
}

impl Screen {
    fn new(args: &WatchArgs, header: Header) -> Self {
        let text = match args.output {
            Output::Text => Some(Text::new(style(args))),
            Output::Json => None,
        };
        Self { header, text }
    }

    fn start(&mut self, snapshot: &Snapshot, epoch: Epoch) -> Result<Vec<u8>> {
        match &mut self.text {
            Some(text) => rendered(|out| text.start(out, &self.header, epoch, snapshot)),
            None => {
                // Standard output is the objects alone.
                for note in interruption(epoch).iter().chain(&self.header.notes) {
                    aside::say(note);
                }
                Ok(Vec::new())
            }
        }
    }

    /// Something that happened beside the figures.
    fn note(&mut self, note: &str) -> Result<Vec<u8>> {
        match &mut self.text {
            Some(text) => rendered(|out| text.note(out, note)),
            None => {
                aside::say(note);
                Ok(Vec::new())
            }
        }
    }

    fn tick(&mut self, snapshot: &Snapshot, epoch: Epoch, loading: &Loading) -> Result<Vec<u8>> {
        match &mut self.text {
            Some(text) => {
                let (columns, rows) = size();
                text.resize(columns, rows);
                rendered(|out| text.tick(out, snapshot))
            }
            None => {
                rendered(|out| json::write(out, &self.header, epoch, snapshot, loading.loaded()))
            }
        }
    }

    fn finish(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>> {
        match &mut self.text {
            Some(text) => rendered(|out| text.finish(out, snapshot)),
            None => Ok(Vec::new()),
        }
    }
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    Ok(bytes)
}

/// What has not come yet, and for how long it was waited.
fn slow(collector: &Collector) -> String {
    let what = collector.reads().map_or_else(String::new, |netns| format!(": {netns}"));
    format!("the counters have not been read for {} s{what}", SLOW.as_secs())
}

fn style(args: &WatchArgs) -> Style {
    let (columns, rows) = size();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stdout().is_terminal() && !no_color;
    let tops = Tops {
        always: args.top.is_some(),
        most: args.tops(),
        by: args.by.iter().map(|by| by.into()).collect(),
        // Where there is no such file, numbers will do.
        services: super::services(),
    };
    Style { columns, rows, colour, zone: zone::local(), tops }
}

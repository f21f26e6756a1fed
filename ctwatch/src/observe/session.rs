//! Watching as a stream of events, which all verbs that watch consume: conntrack is waited for, each of
//! its lives is read once a tick, and censuses are taken beside. What comes out is what was read and what
//! the model makes of it.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep, sleep_until},
};

use super::{
    asking::Asking,
    event::Event,
    loading::Loading,
    sampler::{Collector, Means},
    schedule::{self, Schedule},
};
use crate::{
    host::kernel::modules::{self, ABSENT, Life, Presence},
    model::{
        Model,
        census::{StateOf, Taken},
        loading::Loaded,
    },
    record::{
        counters::KEPT_UP,
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

/// What one life of the table is read with.
pub struct Beginning {
    pub means: Means,
    pub header: Header,
    pub census: Option<schedule::Wanted>,
}

/// What is wanted of a session, besides the means of each life.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub interval: Duration,
    /// So many ticks, and then the end.
    pub count: Option<u64>,
    /// Who has modules loaded is looked for.
    pub loading: bool,
    /// How long the top lists are, and by what they are told apart.
    pub most: usize,
    pub by: Vec<ctwatch_abi::top::By>,
    /// A person asked for lists: those of insertions are kept all the time.
    pub insertions: bool,
}

pub struct Session {
    wishes: Wishes,
    /// Finds the means of each life.
    prepare: Box<dyn FnMut() -> Result<Beginning>>,
    loading: Loading,
    /// How many lives of the table have begun.
    lives: u32,
    /// When it was last read.
    last_seen: Option<Instant>,
    is_stopping: bool,
    /// Who holds the entries in this state is counted too.
    focus: Option<StateOf>,
    ready: VecDeque<Event>,
    state: State,
}

enum State {
    /// Whether that was said.
    Waiting(bool),
    Living(Box<Living>),
    Over,
}

/// One life of the table: totals, and what is attached to the module, are of that one.
struct Living {
    life: Life,
    collector: Collector,
    model: Model,
    schedule: Schedule,
    asking: Asking,
    /// Until it is handed over with the first reading.
    header: Option<Box<Header>>,
    reading: Option<Reading>,
    /// It is time for one, and not asked for yet.
    due: Option<Purpose>,
    ticks: Interval,
    pulse: Interval,
    keeping: Interval,
}

/// One that was asked for.
struct Reading {
    purpose: Purpose,
    answer: oneshot::Receiver<Result<Sample>>,
    begin: Instant,
    tries: u32,
    slow: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    First,
    Tick,
    Last,
    Keep,
}

impl Purpose {
    /// Totals count from the first reading to the last. The number of entries and what the probes
    /// counted are not read at one moment, so where something happens in between, it is read again.
    fn is_still(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }
}

impl Session {
    pub fn new(wishes: Wishes, prepare: impl FnMut() -> Result<Beginning> + 'static) -> Self {
        Self {
            loading: Loading::new(wishes.loading),
            wishes,
            prepare: Box::new(prepare),
            lives: 0,
            last_seen: None,
            is_stopping: false,
            focus: None,
            ready: VecDeque::new(),
            state: State::Waiting(false),
        }
    }

    /// After one last reading, the end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// From the next census on, who holds the entries in this state is counted too.
    pub fn focus(&mut self, of: Option<StateOf>) {
        self.focus = of;
        if let State::Living(living) = &mut self.state {
            living.schedule.focus(of);
        }
    }

    /// Modules that were loaded, and from when on that is seen; `None` where it is not.
    pub fn loaded(&self) -> Option<(jiff::Timestamp, impl ExactSizeIterator<Item = &Loaded>)> {
        self.loading.loaded()
    }

    /// The next event. Whoever stops waiting for it misses nothing.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let life = match &self.state {
                State::Over => return Ok(Event::End),
                State::Waiting(said) => {
                    let said = *said;
                    match self.wait(said).await? {
                        None => continue,
                        Some(life) => {
                            let begun = self.begin(life);
                            self.went(life, begun)?;
                            continue;
                        }
                    }
                }
                State::Living(living) => living.life,
            };
            let lived = self.live().await;
            self.went(life, lived)?;
        }
    }

    /// An error of a life that is over is none.
    fn went(&mut self, life: Life, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error) if modules::life() == Some(life) => Err(error),
            Err(_) => {
                self.end_life();
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn end_life(&mut self) {
        if let State::Living(living) = &self.state
            && living.header.is_none()
        {
            self.ready.push_back(Event::Gone);
        }
        self.state = if self.is_stopping { State::Over } else { State::Waiting(false) };
    }

    async fn wait(&mut self, said: bool) -> Result<Option<Life>> {
        if self.is_stopping {
            self.state = State::Over;
            return Ok(None);
        }
        if let Some(life) = present()? {
            return Ok(Some(life));
        }
        if !said {
            // Before it is said to be absent: who loads it is to be seen.
            self.loading.start();
            if let Some(life) = present()? {
                return Ok(Some(life));
            }
            self.state = State::Waiting(true);
            self.ready.push_back(Event::Absent { was_there: self.lives > 0 });
            return Ok(None);
        }
        sleep(PULSE).await;
        let life = present()?;
        self.ready.extend(self.loading.look().into_iter().map(Event::Loading));
        Ok(life)
    }

    fn begin(&mut self, life: Life) -> Result<()> {
        let Beginning { means, header, census } = (self.prepare)()?;
        let collector = Collector::start(means)?;
        let asking = Asking::new(self.wishes.insertions);
        let reading = Reading::ask(&collector, Purpose::First, asking)?;
        let every = self.wishes.interval;
        let mut ticks = interval_at(Instant::now() + every, every);
        let mut pulse = interval(PULSE);
        // Between ticks that are far apart, counters are read all the same.
        let mut keeping = interval_at(Instant::now() + KEPT_UP, KEPT_UP);
        for timer in [&mut ticks, &mut pulse, &mut keeping] {
            // After a pause (a stopped terminal, a suspended machine) one tick, not all that were
            // missed.
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut schedule = Schedule::new(census);
        schedule.focus(self.focus);
        self.state = State::Living(Box::new(Living {
            life,
            collector,
            model: Model::with_tops(self.wishes.most, &self.wishes.by),
            schedule,
            asking,
            header: Some(Box::new(header)),
            reading: Some(reading),
            due: None,
            ticks,
            pulse,
            keeping,
        }));
        Ok(())
    }

    async fn live(&mut self) -> Result<()> {
        let State::Living(living) = &mut self.state else { return Ok(()) };
        if let Some(reading) = &mut living.reading {
            tokio::select! {
                biased;
                sample = &mut reading.answer => {
                    let sample = sample.context("the collecting thread has ended")??;
                    return self.take_in(sample);
                }
                () = sleep_until(reading.slow) => {
                    reading.slow = Instant::now() + SLOW;
                    let netns = living.collector.reads();
                    let is_last = self.is_stopping;
                    self.ready.push_back(Event::Slow { since: SLOW, netns, is_last });
                    if is_last {
                        self.state = State::Over;
                    }
                    return Ok(());
                }
            }
        }
        if let Some(purpose) = living.due {
            if purpose == Purpose::Last && living.schedule.before_last() {
                let taken = living.schedule.done().await;
                self.ready.push_back(living.counted(taken));
            }
            living.reading = Some(Reading::ask(&living.collector, purpose, living.asking)?);
            living.due = None;
            return Ok(());
        }
        // Who had conntrack loaded, which is there, can no longer be seen: that was not urgent.
        self.loading.start();
        let is_last = self.is_stopping || self.wishes.count == Some(0);
        let turn = tokio::select! {
            biased;
            () = ready_if(is_last) => Some(Purpose::Last),
            taken = living.schedule.done() => {
                self.ready.push_back(living.counted(taken));
                return Ok(());
            }
            _ = living.pulse.tick() => None,
            _ = living.ticks.tick() => match self.wishes.count {
                Some(1) => Some(Purpose::Last),
                _ => Some(Purpose::Tick),
            },
            _ = living.keeping.tick(), if self.wishes.interval > KEPT_UP => Some(Purpose::Keep),
        };
        self.ready.extend(self.loading.look().into_iter().map(Event::Loading));
        if modules::life() != Some(living.life) {
            self.end_life();
            return Ok(());
        }
        living.due = turn;
        Ok(())
    }

    fn take_in(&mut self, sample: Sample) -> Result<()> {
        let State::Living(living) = &mut self.state else { return Ok(()) };
        let Some(mut reading) = living.reading.take() else { return Ok(()) };
        let purpose = reading.purpose;
        let again = purpose.is_still()
            && !sample.is_still()
            && reading.tries < STILL_TRIES
            && reading.begin.elapsed() <= STILL_WITHIN;
        if again {
            reading.tries += 1;
            reading.answer = living.collector.request(true, living.asking.is_on())?;
            living.reading = Some(reading);
            return Ok(());
        }
        // What was read while it went is of nothing.
        if modules::life() != Some(living.life) {
            self.end_life();
            return Ok(());
        }
        // That the counters were read in time is in their sums.
        if purpose == Purpose::Keep {
            return Ok(());
        }
        let snapshot = Box::new(living.model.advance(&sample));
        let sample = Box::new(sample);
        living.schedule.look(&snapshot);
        living.asking.look(&snapshot);
        let before = self.last_seen.replace(Instant::now());
        match living.header.take() {
            Some(header) => {
                self.lives += 1;
                // From one reading to the next it is one interval, however long the first took.
                living.ticks.reset();
                living.keeping.reset();
                let gap = before.map(|seen| seen.elapsed());
                let epoch = Epoch { number: self.lives, gap };
                self.ready.push_back(Event::Begin { header, epoch, sample, snapshot });
            }
            None => {
                self.wishes.count = self.wishes.count.map(|left| left.saturating_sub(1));
                self.ready.push_back(Event::Tick { sample, snapshot });
            }
        }
        if purpose == Purpose::Last {
            self.state = State::Over;
        }
        Ok(())
    }
}

impl Living {
    fn counted(&mut self, taken: Result<Taken>) -> Event {
        match taken {
            Ok(taken) => {
                let taken = Arc::new(taken);
                self.model.take_in(Arc::clone(&taken));
                Event::Census(taken)
            }
            Err(why) => Event::NoCensus(format!("{why:#}")),
        }
    }
}

impl Reading {
    fn ask(collector: &Collector, purpose: Purpose, asking: Asking) -> Result<Self> {
        // Of all namespaces, however little happens in them, but for ticks.
        let answer = collector.request(purpose != Purpose::Tick, asking.is_on())?;
        let begin = Instant::now();
        Ok(Self { purpose, answer, begin, tries: 1, slow: begin + SLOW })
    }
}

async fn ready_if(it_is: bool) {
    if !it_is {
        pending::<()>().await;
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

/// What is said where conntrack is waited for.
pub fn absent(was_there: bool) -> String {
    let what = if was_there { "nf_conntrack was unloaded" } else { ABSENT };
    format!("{what}: nothing is tracked, and conntrack drops nothing; waiting for it")
}

//! `ctwatch top`: what a session sees, or a recording of one, on a screen to work at.

mod console;
mod doctoring;
mod heard;
mod saving;
pub(super) mod settings;
mod tracing;

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result};
use ctwatch_abi::top::By;
use rustix::process::{Signal, getpid, kill_process};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use console::Console;
use doctoring::Doctoring;
use heard::{Heard, Hearing};
use tracing::{TraceOf, TracePane};

use super::{setup, watch};
use crate::{
    cli::{ChartsArg, ColoursArg, TopArgs},
    host::machine::zone,
    model::Snapshot,
    observe::{event::Event, session::absent},
    output::{
        escape::escaped,
        services::Services,
        text::{
            shown::ShownTops,
            watch::{Style, Text},
        },
    },
    record::{sample::Sample, session::Header},
    recording::mask::Mask,
    tui::{
        acts::{Demand, Under},
        advice::{self, AdviceRow},
        decode::KeyDecoder,
        grid::Grid,
        history::{self, History, HistoryBounds},
        keys::Press,
        look::{Colours, Environment, Glyphs, Palette},
        pointing::ClickArea,
        scene::Scene,
        state::{Pane, TopState},
        view,
    },
};

/// The past that is kept: ten minutes of seconds, and so many bytes at most.
const KEPT: HistoryBounds = HistoryBounds { readings: 600, bytes: 64 << 20 };
/// Of a recording.
const KEPT_OF_RECORDING: HistoryBounds = HistoryBounds { readings: 4000, bytes: 256 << 20 };
/// An escape that nothing follows within that is the key: a serial line brings a byte in a millisecond.
const ESCAPE: Duration = Duration::from_millis(50);
/// A notice makes room for the keys after so long.
const NOTICE: Duration = Duration::from_secs(10);
/// Between two screens at least.
const FRAME: Duration = Duration::from_millis(50);

pub async fn run(args: TopArgs, mask: Option<Mask>) -> Result<()> {
    if args.print_config {
        return super::print(settings::TEMPLATE.as_bytes());
    }
    let args = settings::apply(args)?;
    let watched = args.watch();
    let is_recorded = args.past.from.is_some();
    let mut hearing = Hearing::new()?;
    let mut top = Top::new(&args, watched.by(), watched.tops(), mask.clone());
    let (prepared, looking) = (watched.clone(), Rc::clone(&top.doctor.looking));
    let mut source = watch::source(&watched, mask, move || {
        let beginning = setup::prepare(&prepared)?;
        looking.set(Some(setup::looking(&prepared, &beginning.means)));
        Ok(beginning)
    })?;
    let mut console = Console::open(args.mouse)?;
    let mut decoder = KeyDecoder::new(args.mouse);
    let mut plays = interval(args.interval());
    plays.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut escape_at = Instant::now();
    let (mut drawn_at, mut is_due) = (Instant::now(), true);
    // A recording is read to its end, and looked at then.
    let mut is_read = false;
    let mut is_hung_up = false;
    let outcome = loop {
        let draws_at = drawn_at + FRAME;
        let demand = tokio::select! {
            biased;
            heard = hearing.next() => match heard {
                Heard::Stop => Demand::Quit,
                Heard::Suspend => Demand::Suspend,
                Heard::Resized => Demand::Nothing,
                Heard::Continued => {
                    console.enter()?;
                    Demand::Nothing
                }
            },
            typed = console.typed(), if !is_hung_up => match typed {
                None => {
                    is_hung_up = true;
                    Demand::Quit
                }
                Some(bytes) => {
                    escape_at = Instant::now() + ESCAPE;
                    top.press_all(&decoder.feed(&bytes), &mut console)
                }
            },
            () = sleep_until(escape_at), if decoder.is_waiting() => {
                top.press_all(decoder.flush().as_slice(), &mut console)
            }
            () = sleep_until(draws_at), if is_due && console.is_entered() => {
                top.size = Console::size();
                top.prepare();
                let (screen, areas) = top.draw();
                top.areas = areas;
                console.show(screen);
                (drawn_at, is_due) = (Instant::now(), false);
                continue;
            }
            _ = plays.tick(), if top.state.is_playing => {
                top.state.play(&top.history);
                Demand::Nothing
            }
            event = source.next(), if !is_read => match event {
                Ok(Event::End) if top.is_stopping || !is_recorded => break Ok(()),
                Ok(Event::End) => {
                    is_read = true;
                    top.doctor.recorded(source.facts());
                    Demand::Nothing
                }
                Ok(event) => {
                    top.event(event);
                    Demand::Nothing
                }
                Err(error) => break Err(error),
            },
        };
        is_due = true;
        source.focus(top.state.state_of());
        match demand {
            // The second time, without a last reading.
            Demand::Quit if top.is_stopping || is_recorded => break Ok(()),
            Demand::Quit => {
                top.is_stopping = true;
                source.stop();
            }
            Demand::Suspend => {
                console.leave("");
                kill_process(getpid(), Signal::STOP).context("cannot stop")?;
            }
            _ => {}
        }
    };
    console.leave(&top.last_words());
    outcome
}

/// What is known, and what is looked at.
struct Top {
    /// Columns and rows.
    size: (u16, u16),
    /// What was read last.
    sample: Option<Box<Sample>>,
    doctor: Doctoring,
    advice: Vec<AdviceRow>,
    /// What lies where on the screen that was drawn last.
    areas: Vec<ClickArea>,
    tracing: TracePane,
    traced: Vec<String>,
    no_trace: String,
    state: TopState,
    history: History,
    header: Option<Box<Header>>,
    look: Palette,
    services: Services,
    zone: jiff::tz::TimeZone,
    notice: Option<String>,
    said_at: Option<Instant>,
    waiting: String,
    tops: ShownTops,
    is_stopping: bool,
}

impl Top {
    fn new(args: &TopArgs, by: Vec<By>, most: usize, mask: Option<Mask>) -> Self {
        let is_recorded = args.past.from.is_some();
        let services = super::services();
        let tops = ShownTops {
            always: true,
            most: most.min(5),
            by: by.clone(),
            services: services.clone(),
        };
        Self {
            size: Console::size(),
            sample: None,
            doctor: Doctoring::new(mask.clone()),
            tracing: TracePane::new(args.how.mechanism, services.clone(), zone::local(), mask),
            traced: Vec::new(),
            no_trace: String::new(),
            advice: Vec::new(),
            areas: Vec::new(),
            state: TopState::new(by, is_recorded),
            history: History::new(if is_recorded { KEPT_OF_RECORDING } else { KEPT }),
            header: None,
            look: look(args),
            services,
            zone: zone::local(),
            notice: None,
            said_at: None,
            waiting: "waiting for the first reading".to_owned(),
            tops,
            is_stopping: false,
        }
    }

    fn press_all(&mut self, keys: &[Press], console: &mut Console) -> Demand {
        for key in keys {
            self.notice = None;
            let under = Under {
                history: &self.history,
                areas: &self.areas,
                services: &self.services,
                trace_rows: self.traced.len(),
                doctor_rows: self.advice.len(),
            };
            match self.state.press(*key, &under) {
                demand @ (Demand::Quit | Demand::Suspend) => return demand,
                Demand::Redraw => console.forget(),
                Demand::Copy => self.copy(console),
                Demand::Save => self.saved(saving::screen(&self.draw().0.text(), &self.zone)),
                Demand::Report => {
                    let header = self.header.as_deref();
                    let report = self.doctor.report();
                    let (services, zone) = (&self.services, &self.zone);
                    self.saved(saving::report(&self.history, header, report, services, zone));
                }
                Demand::Nothing | Demand::Play => {}
            }
            self.prepare();
        }
        Demand::Nothing
    }

    fn saved(&mut self, written: Result<std::path::PathBuf>) {
        self.notice = Some(match written {
            Ok(path) => format!("wrote {}", path.display()),
            Err(why) => format!("{why:#}"),
        });
    }

    /// The fix of the row, or else the name of the row.
    fn copy(&mut self, console: &Console) {
        let row = self.advice.get(self.state.doctor_row.min(self.advice.len().saturating_sub(1)));
        let fix = row
            .filter(|_| self.state.pane == Pane::Doctor)
            .and_then(|row| advice::fix(self.doctor.findings(), row));
        let line = self.state.trace_row.min(self.traced.len().saturating_sub(1));
        let name = match self.state.pane {
            Pane::Doctor => None,
            Pane::Trace => self.traced.get(line).cloned(),
            _ => self.state.row_name(&self.history, &self.services),
        };
        let (text, what) = match (fix, name) {
            (Some(fix), _) => (advice::commands(fix), fix.title.clone()),
            (None, Some(name)) => (escaped(&name), name),
            (None, None) => {
                self.notice = Some("there is nothing to copy".to_owned());
                return;
            }
        };
        console.copy(&text);
        self.notice = Some(format!("copied, where the terminal lets it: {what}"));
    }

    /// What panes show that is not in snapshots.
    fn prepare(&mut self) {
        let is_doctor = self.state.pane == Pane::Doctor;
        if is_doctor
            && self.doctor.is_due(self.state.netns())
            && let (Some(header), Some(snapshot)) = (&self.header, self.state.shown(&self.history))
        {
            self.doctor.find(header, snapshot, self.sample.as_deref(), self.state.netns());
        }
        if is_doctor {
            let is_narrowed = self.state.netns().is_some();
            let rows = advice::rows(self.doctor.findings(), self.size.0, is_narrowed);
            self.advice = advice::matching(rows, &self.state);
        }
        self.trace();
    }

    /// While the pane is looked at and not frozen.
    fn trace(&mut self) {
        let is_looked_at = self.state.pane == Pane::Trace && self.state.help.is_none();
        if self.state.is_recorded {
            self.no_trace = "a recording holds no single packets".to_owned();
            return;
        }
        if !is_looked_at {
            self.tracing.stop();
            return;
        }
        if self.state.cursor.is_some() {
            return;
        }
        let snapshot = self.state.shown(&self.history);
        let narrowed = self.state.netns().and_then(|netns| history::table(snapshot?, netns));
        let steps = self.state.narrowed.iter().map(|step| &step.to);
        let of = TraceOf::narrowed(narrowed.map(|table| table.inode), steps);
        (self.traced, self.no_trace) = match self.tracing.look(of) {
            Ok(told) => told,
            Err(why) => (Vec::new(), format!("cannot trace: {why:#}")),
        };
        let is_any = !self.traced.is_empty();
        self.traced.retain(|line| self.state.is_filtered_in(Pane::Trace, line));
        if is_any && self.traced.is_empty() {
            self.no_trace = format!("no drop matches /{}", self.state.filter());
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Absent { was_there } => self.say(absent(was_there)),
            Event::Begin { header, snapshot, .. } => {
                if let Some(note) = header.notes.first() {
                    self.say(format!("note: {note}"));
                }
                self.header = Some(header);
                self.take(snapshot);
            }
            Event::Tick { snapshot, sample } => {
                self.sample = Some(sample);
                // It has been read by now.
                if self.said_at.is_some_and(|at| at.elapsed() > NOTICE) {
                    self.notice = None;
                }
                let is_urgent =
                    snapshot.tables.iter().any(|table| table.is_judged && table.change.is_some());
                self.doctor.look(self.state.pane == Pane::Doctor, is_urgent);
                self.take(snapshot);
            }
            Event::NoCensus(why) => self.say(format!("no census: {why}")),
            Event::Slow { since, netns, .. } => {
                let netns = netns.map_or_else(String::new, |netns| format!(": {netns}"));
                self.say(format!(
                    "the counters have not been read for {} s{netns}",
                    since.as_secs()
                ));
            }
            Event::Note(words) => self.say(words),
            Event::Changed { what, .. } => self.say(what.join("; ")),
            Event::Gone => self.say(absent(true)),
            Event::Loading(news) => self.say(watch::words(&news).join("; ")),
            Event::Census(_) | Event::Stopped | Event::End => {}
        }
    }

    fn say(&mut self, words: String) {
        self.waiting.clone_from(&words);
        self.notice = Some(words);
        self.said_at = Some(Instant::now());
    }

    fn take(&mut self, snapshot: Box<Snapshot>) {
        self.history.push(snapshot);
        // A recording is looked at from its begin.
        if self.state.is_recorded && self.state.cursor.is_none() {
            self.state.cursor = self.history.oldest().map(|kept| kept.number);
        }
    }

    fn draw(&self) -> (Grid, Vec<ClickArea>) {
        let scene = Scene {
            state: &self.state,
            history: &self.history,
            header: self.header.as_deref(),
            services: &self.services,
            zone: &self.zone,
            notice: self.notice.as_deref(),
            waiting: &self.waiting,
            advice: &self.advice,
            no_advice: &self.doctor.why,
            traced: &self.traced,
            no_trace: &self.no_trace,
        };
        view::drawn(&scene, self.look, self.size.0, self.size.1)
    }

    /// What it came to.
    fn last_words(&self) -> String {
        let Some(last) = self.history.newest().filter(|_| !self.state.is_recorded) else {
            return String::new();
        };
        let (columns, rows) = super::size();
        let zone = self.zone.clone();
        let style = Style { columns, rows, colour: false, zone, tops: self.tops.clone() };
        let mut bytes = Vec::new();
        match Text::new(style).finish(&mut bytes, &last.snapshot) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }
}

/// What the terminal can show, and what was asked for.
fn look(args: &TopArgs) -> Palette {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let look = Palette::of(&Environment {
        term: variable("TERM"),
        colorterm: variable("COLORTERM"),
        no_color: variable("NO_COLOR").is_some(),
        locale: ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable),
    });
    let colours = args.colours.map(|colours| match colours {
        ColoursArg::None => Colours::None,
        ColoursArg::Eight => Colours::Eight,
        ColoursArg::Sixteen => Colours::Sixteen,
    });
    Palette {
        glyphs: match args.charts {
            _ if args.ascii => Glyphs::Ascii,
            Some(ChartsArg::Ascii) => Glyphs::Ascii,
            Some(ChartsArg::Blocks) => Glyphs::Blocks,
            Some(ChartsArg::Braille) => Glyphs::Braille,
            None => look.glyphs,
        },
        colours: colours.unwrap_or(look.colours),
    }
}

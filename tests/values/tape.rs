//! A folder as `ctwatch record` leaves it. Without its thread and its clock, which lose lines, and begin
//! segments, by how long this machine takes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ctwatch::{
    model::{
        Model,
        census::Taken,
        incident::{Ending, Incident},
        incidents::{Incidents, Turn},
        trouble::Criteria,
    },
    output::json,
    record::{
        sample::Sample,
        session::{Epoch, Header},
    },
    recording::{
        frame::Encoder,
        line::{Line, RecordedOn, Segment},
        segment,
    },
};
use ctwatch_abi::top::By;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

/// Reading can begin at a full frame: so often there is one.
const FULL: Duration = Duration::from_secs(60);
/// Of each list of an incident.
const MOST: usize = 5;

pub(crate) struct Tape {
    folder: PathBuf,
    on: RecordedOn,
    number: u64,
    begun: Option<Timestamp>,
    text: Vec<u8>,
    encoder: Encoder,
    full: Option<Duration>,
    life: Option<(Header, Epoch)>,
    model: Model,
    incidents: Option<Incidents>,
    /// A line each.
    over: Vec<u8>,
}

impl Tape {
    pub(crate) fn new(folder: &Path, on: RecordedOn) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self {
            folder: folder.to_owned(),
            on,
            number: 1,
            begun: None,
            text: Vec::new(),
            encoder: Encoder::default(),
            full: None,
            life: None,
            model: Model::default(),
            incidents: None,
            over: Vec::new(),
        }
    }

    pub(crate) fn on(&mut self, boot_id: &str) {
        self.on.boot_id = Some(boot_id.to_owned());
    }

    /// A segment begins; the one before is finished, and the life goes on in it.
    pub(crate) fn segment(&mut self, time: Timestamp) {
        self.seal();
        let segment = Segment::new(self.number, time, &self.on);
        (self.begun, self.full) = (Some(time), None);
        self.line(&Line::Segment(segment));
        if let Some((header, epoch)) = self.life.clone() {
            self.line(&Line::Begin { again: true, header: Box::new(header), epoch });
        }
    }

    pub(crate) fn line(&mut self, line: &Line) {
        self.text.extend(line.text().unwrap());
    }

    pub(crate) fn begin(&mut self, header: Header, epoch: Epoch) {
        self.finish(Ending::Open);
        (self.encoder, self.full) = (Encoder::default(), None);
        self.model = Model::with_tops(MOST, &[By::Source, By::Service, By::Interface]);
        let criteria = Criteria::default().read_every(header.interval);
        self.incidents = Some(Incidents::new(header.boot_id.as_deref(), epoch.number, criteria));
        self.line(&Line::Begin { again: false, header: Box::new(header.clone()), epoch });
        self.life = Some((header, epoch));
    }

    pub(crate) fn tick(&mut self, sample: &Sample) {
        let full = self.full.is_none_or(|last| sample.elapsed.saturating_sub(last) >= FULL);
        if full {
            self.full = Some(sample.elapsed);
        }
        let frame = self.encoder.encode(sample, full);
        self.line(&Line::Tick(Box::new(frame)));
        let snapshot = self.model.advance(sample);
        let turns = self.incidents.iter_mut().flat_map(|incidents| incidents.look(&snapshot));
        let over: Vec<Incident> = turns.filter_map(over).collect();
        over.iter().for_each(|incident| self.incident(incident));
    }

    pub(crate) fn census(&mut self, taken: Taken) {
        self.line(&Line::Census { taken: Box::new(taken.clone()) });
        self.model.take_in(Arc::new(taken));
    }

    fn incident(&mut self, incident: &Incident) {
        json::incident::write(&mut self.over, incident).unwrap();
    }

    /// That life is over.
    pub(crate) fn finish(&mut self, ending: Ending) {
        self.life = None;
        let Some(mut incidents) = self.incidents.take() else { return };
        incidents.finish(ending).iter().for_each(|incident| self.incident(incident));
    }

    /// The segment is finished.
    pub(crate) fn seal(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let path = segment::sealed(&self.folder.join(segment::name(self.number, begun)));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&std::mem::take(&mut self.text)).unwrap();
        fs::write(path, gzip.finish().unwrap()).unwrap();
        self.number += 1;
    }

    /// It is being written still, or was when its recorder was killed: then the last line is torn.
    pub(crate) fn leave(mut self, torn: bool) {
        self.finish(Ending::Open);
        if let Some(begun) = self.begun.take() {
            if torn {
                self.text.truncate(self.text.len() - 40);
            }
            fs::write(self.folder.join(segment::name(self.number, begun)), &self.text).unwrap();
        }
        self.write_incidents();
    }

    /// Its recorder is killed over a line; the next one finishes the segment.
    pub(crate) fn killed(&mut self) {
        self.finish(Ending::Open);
        let last = self.text.iter().rev().skip(1).position(|byte| *byte == b'\n').unwrap_or(0);
        self.text.truncate(self.text.len() - 1 - last);
        self.line(&Line::Torn { bytes: u64::try_from(last / 2).unwrap() });
        self.seal();
    }

    /// It was stopped, and another will go on.
    pub(crate) fn stop(&mut self) {
        self.finish(Ending::Open);
        self.line(&Line::End);
        self.seal();
    }

    pub(crate) fn write_incidents(&self) {
        if !self.over.is_empty() {
            fs::write(self.folder.join("incidents.ndjson"), &self.over).unwrap();
        }
    }
}

fn over(turn: Turn) -> Option<Incident> {
    match turn {
        Turn::Ended(incident) => Some(incident),
        Turn::Began(_) | Turn::Grew(_) => None,
    }
}

//! Who had conntrack's modules loaded.

use serde::Serialize;

use crate::model::loading::{Loaded, Process};

#[derive(Serialize)]
pub(super) struct LoadedObject<'a> {
    time: String,
    module: &'a str,
    #[serde(flatten)]
    by: ProcessObject<'a>,
    asked_by: Option<AskerObject<'a>>,
}

#[derive(Serialize)]
struct ProcessObject<'a> {
    pid: u32,
    comm: &'a str,
}

#[derive(Serialize)]
struct AskerObject<'a> {
    #[serde(flatten)]
    process: ProcessObject<'a>,
    request: Option<&'a str>,
    parent: Option<ProcessObject<'a>>,
}

impl<'a> From<&'a Process> for ProcessObject<'a> {
    fn from(process: &'a Process) -> Self {
        Self { pid: process.pid, comm: &process.comm }
    }
}

impl<'a> From<&'a Loaded> for LoadedObject<'a> {
    fn from(loaded: &'a Loaded) -> Self {
        Self {
            time: loaded.time.to_string(),
            module: &loaded.module,
            by: (&loaded.by).into(),
            asked_by: loaded.asked_by.as_ref().map(|asker| AskerObject {
                process: (&asker.process).into(),
                request: asker.request.as_deref(),
                parent: asker.parent.as_ref().map(ProcessObject::from),
            }),
        }
    }
}

//! What the page is made of.

use jiff::tz::TimeZone;

use crate::{
    diagnosis::report::Report, model::story::WholeStory, output::services::Services,
    record::session::Header,
};

#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub story: &'a WholeStory,
    pub header: &'a Header,
    /// What the doctor found, where it was asked.
    pub report: Option<&'a Report>,
    pub services: &'a Services,
    /// In which times are written.
    pub zone: &'a TimeZone,
}

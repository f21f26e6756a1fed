//! A number, and how far it can be trusted.

use serde::Serialize;

use crate::model::{Sum, figure::Figure};

#[derive(Serialize)]
pub(super) struct FigureObject {
    total: Option<u64>,
    per_s: Option<f64>,
    exactness: &'static str,
    /// The truth is between this and `total`.
    at_least: Option<u64>,
}

impl From<&Figure> for FigureObject {
    fn from(figure: &Figure) -> Self {
        Self {
            total: figure.total,
            per_s: figure.per_s,
            exactness: figure.exactness.name(),
            at_least: figure.at_least,
        }
    }
}

#[derive(Serialize)]
pub(super) struct SumObject {
    total: u64,
    at_least: u64,
}

impl From<Sum> for SumObject {
    fn from(Sum { total, at_least }: Sum) -> Self {
        Self { total, at_least }
    }
}

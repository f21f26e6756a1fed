//! What is written down is read again: by this version, by a later one, by an older one.

mod any;
mod facts;
mod fixture;
mod later;
mod values;
mod written;

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// As it is read again from a recording, which is what was written.
pub(crate) fn recorded<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> T {
    let line = serde_json::to_string(value).unwrap();
    assert!(!line.contains('\n'), "{line}");
    let read: T = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(read, *value, "{line}");
    read
}

/// What is read of this, with this at this place.
fn with<T: Serialize + DeserializeOwned>(value: &T, at: &str, put: Value) -> Result<T, String> {
    let mut written = serde_json::to_value(value).unwrap();
    *written.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")) = put;
    serde_json::from_value(written).map_err(|error| error.to_string())
}

//! The time zone of this machine.

use std::{fs, sync::OnceLock};

use jiff::tz::TimeZone;

/// What says which it is.
const LOCALTIME: &str = "/etc/localtime";

/// Read once. UTC where the file for it is no file: somebody would be waited for.
pub fn local() -> TimeZone {
    static LOCAL: OnceLock<TimeZone> = OnceLock::new();
    let find = || match fs::metadata(LOCALTIME) {
        Ok(file) if !file.is_file() => TimeZone::UTC,
        _ => TimeZone::system(),
    };
    LOCAL.get_or_init(find).clone()
}

//! CPUs that are online: the programs' memory goes by them, not by all that could come, which are 256 on some
//! machines where two are there. One that comes later counts in what others have.

use anyhow::{Context, Result};

use crate::host::machine::files;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// One more than the number of the last CPU that is online.
pub(super) fn online() -> Result<usize> {
    let text = files::text(ONLINE).with_context(|| format!("cannot read {ONLINE}"))?;
    after_last(&text).with_context(|| format!("{ONLINE} is {text:?}"))
}

/// Of a list as `0-3,8-11`, which ascends.
fn after_last(list: &str) -> Option<usize> {
    let last = list.trim().rsplit([',', '-']).next()?;
    last.parse::<usize>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_list_decides() {
        let of = |list| after_last(list);
        assert_eq!((of("0\n"), of("0-1\n"), of("0,2,5-7\n")), (Some(1), Some(2), Some(8)));
        assert_eq!((of("\n"), of(""), of("none")), (None, None, None));
        assert!(online().is_ok_and(|online| online > 0));
    }
}

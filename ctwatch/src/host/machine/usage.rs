//! What a process uses, as the kernel says.

use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

use super::files;

/// CPU time, and bytes of memory that it has. `None` where that is hidden, or it is gone.
pub fn of(pid: u32) -> Option<(Duration, u64)> {
    let (ticks, pages) = read(&files::text(format!("/proc/{pid}/stat")).ok()?)?;
    let cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
    Some((cpu, pages.checked_mul(page_size().try_into().ok()?)?))
}

/// Ticks of CPU time, and pages.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn read(stat: &str) -> Option<(u64, u64)> {
    // A name may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((number(11)?.checked_add(number(12)?)?, number(21)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_bracket_is_no_field() {
        let stat = "7 (a) 1 b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 9 99 250 0\n";
        assert_eq!(read(stat), Some((42, 250)));
        assert_eq!(read("7 (a) S 1"), None);
        let (_, memory) = of(std::process::id()).unwrap();
        assert!(memory > 100_000, "{memory}");
        assert_eq!(of(u32::MAX), None);
    }
}

//! Which segments are removed to stay within what may be kept. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub bytes: u64,
    pub age: Duration,
    /// So much of the file system is left free for others.
    pub free: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { bytes: 256 << 20, age: Duration::from_secs(30 * 86_400), free: 256 << 20 }
    }
}

/// A segment that is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub number: u64,
    pub bytes: u64,
    /// When it was last written.
    pub time: Timestamp,
}

impl Keep {
    /// Those to be removed, of all that are finished, the oldest first. `writing`: bytes of the one that
    /// is being written; `free`: of the file system, `None` where that is not known.
    pub fn excess(
        &self,
        finished: &[Kept],
        writing: u64,
        free: Option<u64>,
        now: Timestamp,
    ) -> Vec<u64> {
        let mut bytes = finished.iter().map(|kept| kept.bytes).sum::<u64>().saturating_add(writing);
        let mut free = free.unwrap_or(u64::MAX);
        let mut excess = Vec::new();
        for kept in finished {
            let is_old = now.duration_since(kept.time).unsigned_abs() > self.age && now > kept.time;
            if bytes <= self.bytes && free >= self.free && !is_old {
                break;
            }
            bytes -= kept.bytes;
            free = free.saturating_add(kept.bytes);
            excess.push(kept.number);
        }
        excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn kept() -> Vec<Kept> {
        let time = |number: u32| Timestamp::from_second(i64::from(number) * DAY).unwrap();
        let kept = |number: u32| Kept { number: number.into(), bytes: 100, time: time(number) };
        (1..=5).map(kept).collect()
    }

    fn keep(bytes: u64, days: u64, free: u64) -> Keep {
        Keep { bytes, age: Duration::from_secs(days * DAY as u64), free }
    }

    fn excess(keep: Keep, free: Option<u64>) -> Vec<u64> {
        keep.excess(&kept(), 50, free, Timestamp::from_second(6 * DAY).unwrap())
    }

    #[test]
    fn the_oldest_make_room() {
        assert_eq!(excess(keep(550, 100, 0), Some(0)), [0_u64; 0]);
        assert_eq!(excess(keep(549, 100, 0), Some(0)), [1]);
        assert_eq!(excess(keep(260, 100, 0), None), [1, 2, 3]);
        assert_eq!(excess(keep(0, 100, 0), None), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_old_and_a_full_disk_make_room() {
        assert_eq!(excess(keep(1000, 3, 0), None), [1, 2]);
        assert_eq!(excess(keep(1000, 100, 250), Some(100)), [1, 2]);
        assert_eq!(excess(keep(1000, 100, 250), None), [0_u64; 0]);
        // A clock that was set back makes nothing old.
        let before = Timestamp::from_second(-9 * DAY).unwrap();
        assert!(keep(1000, 3, 0).excess(&kept(), 0, None, before).is_empty());
    }
}

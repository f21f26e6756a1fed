//! A lab that is kept for the next use, where somebody wants that: building one takes longer than
//! making it as good as new. Whether it is, is verified before it is handed out again.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{rooms::Rooms, topology::Plan};

enum Kept {
    /// Each is taken down after its use.
    Never,
    Nothing,
    One(Arc<Rooms>),
}

static KEPT: Mutex<Kept> = Mutex::new(Kept::Never);

fn exchange(with: Kept) -> Kept {
    std::mem::replace(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner), with)
}

/// While this is there, one lab is kept from one use to the next.
pub struct Keeping(());

impl Keeping {
    pub fn begin() -> Self {
        drop(exchange(Kept::Nothing));
        Self(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        drop(exchange(Kept::Never));
    }
}

/// While this is there, something is being done with labs that may end badly; the lab that is kept
/// is then thrown away, for nobody knows what it has seen.
pub struct Suspect {
    why: &'static str,
    good: bool,
}

impl Suspect {
    pub fn of(why: &'static str) -> Self {
        Self { why, good: false }
    }

    pub fn is_good(mut self) {
        self.good = true;
    }
}

impl Drop for Suspect {
    fn drop(&mut self) {
        if !self.good
            && has_kept()
            && let Kept::One(rooms) = exchange(Kept::Nothing)
        {
            eprintln!("the lab {} is thrown away: {}", rooms.name(), self.why);
        }
    }
}

/// The one that is kept, if it is as good as new.
pub(crate) fn take(plan: Plan) -> Option<Arc<Rooms>> {
    if plan.fresh || !has_kept() {
        return None;
    }
    let Kept::One(rooms) = exchange(Kept::Nothing) else { return None };
    match rooms.verify() {
        Ok(()) => Some(rooms),
        Err(why) => {
            eprintln!("the lab {} is thrown away: it is not clean: {why:#}", rooms.name());
            None
        }
    }
}

fn has_kept() -> bool {
    matches!(&*KEPT.lock().unwrap_or_else(PoisonError::into_inner), Kept::One(_))
}

/// Whether one that is put back would be kept.
pub(crate) fn has_room() -> bool {
    matches!(&*KEPT.lock().unwrap_or_else(PoisonError::into_inner), Kept::Nothing)
}

pub(crate) fn put(rooms: Arc<Rooms>) {
    drop(exchange(Kept::One(rooms)));
}

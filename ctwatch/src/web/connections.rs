//! So many connections at once: where there are more, the one that began something the longest ago makes room.

use std::{cell::RefCell, future::Future, rc::Rc};

use tokio::task::{AbortHandle, spawn_local};

use super::pace::Pace;

pub(super) const MOST: usize = 64;

struct Open {
    number: u64,
    pace: Rc<Pace>,
    task: AbortHandle,
}

#[derive(Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Open>>,
}

impl Connections {
    /// Goes on beside until it ends, or must make room.
    pub(super) fn add(
        self: &Rc<Self>,
        number: u64,
        pace: Rc<Pace>,
        work: impl Future<Output = ()> + 'static,
    ) {
        let mut open = self.open.borrow_mut();
        if open.len() >= MOST {
            let oldest = open.iter().enumerate().min_by_key(|(_, one)| one.pace.since());
            if let Some(at) = oldest.map(|(at, _)| at) {
                open.swap_remove(at).task.abort();
            }
        }
        let all = Rc::clone(self);
        let task = spawn_local(async move {
            work.await;
            all.open.borrow_mut().retain(|one| one.number != number);
        });
        open.push(Open { number, pace, task: task.abort_handle() });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let all = Rc::new(Connections::default());
            for number in 0..MOST as u64 {
                all.add(number, Pace::new(), pending());
            }
            all.add(99, Pace::new(), async {});
            let numbers = || all.open.borrow().iter().map(|one| one.number).collect::<Vec<_>>();
            assert_eq!((numbers().len(), numbers().contains(&0)), (MOST, false));
            while numbers().contains(&99) {
                yield_now().await;
            }
            assert_eq!(numbers().len(), MOST - 1);
        });
    }
}

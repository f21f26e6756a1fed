//! One file of what was opened, handed over to whoever reads it.

use std::io::{BufRead, BufReader, Read};

use anyhow::Result;

use super::{
    budget::{Budget, Metered, PieceReader},
    packing::{Packing, decoded, is_tar, started},
};

/// Takes one file: its name inside, which is only a hint, and what is in it. An error of its own ends it
/// all; where reading failed, it is taken for that, and it goes on.
pub type Each<'a> = dyn FnMut(&str, &mut dyn BufRead) -> Result<()> + 'a;

/// One file of a folder or an archive; packed, it is unpacked once.
pub(super) fn piece(
    name: &str,
    source: impl Read,
    budget: &Budget,
    each: &mut Each<'_>,
) -> Result<()> {
    const NESTED: &str = "archives inside are not opened";
    let opened = (|| {
        let (start, whole) = started(source)?;
        let packing = Packing::of(&start);
        if packing == Packing::Plain {
            return Ok((start, Box::new(whole) as Box<dyn Read + '_>));
        }
        let (start, whole) = started(Metered::new(decoded(packing, whole, budget)?, budget))?;
        Ok((start, Box::new(whole) as Box<dyn Read + '_>))
    })();
    match opened {
        Ok((start, _)) if is_tar(&start) || Packing::of(&start).named().is_some() => {
            budget.leave_out(name, NESTED);
            Ok(())
        }
        Ok((_, whole)) => hand_over(name, whole, budget, each),
        Err(error) => {
            budget.fail(name, &error);
            Ok(())
        }
    }
}

pub(super) fn hand_over(
    name: &str,
    source: impl Read,
    budget: &Budget,
    each: &mut Each<'_>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, PieceReader::new(source, budget));
    let taken = each(name, &mut reader);
    if let Some(why) = budget.take_failure() {
        budget.leave_out(name, &why);
        return Ok(());
    }
    budget.count_piece();
    taken
}

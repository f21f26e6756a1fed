//! The functions of conntrack that programs are attached to. All are plain symbols from Linux 4.15
//! to today. <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_core.c>

use anyhow::Result;

/// A function, by what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookedFunction {
    /// Makes an entry for a new packet, or does not.
    Alloc,
    /// Looks for an entry to throw out because the table is full.
    EarlyDrop,
    /// Puts an entry into the table.
    Insert,
    /// Gives an entry back to the allocator.
    Free,
    /// Decides about a packet whose tuple is in the table already.
    Clash,
    /// Is given each new packet that has come to its end, to put its entry into the table.
    Confirm,
}

impl HookedFunction {
    pub const ALL: [Self; 6] =
        [Self::Alloc, Self::EarlyDrop, Self::Insert, Self::Free, Self::Clash, Self::Confirm];

    pub const fn function(self) -> &'static str {
        match self {
            Self::Alloc => "__nf_conntrack_alloc",
            Self::EarlyDrop => "early_drop",
            Self::Insert => "__nf_conntrack_hash_insert",
            Self::Free => "nf_conntrack_free",
            Self::Clash => "nf_ct_resolve_clash",
            Self::Confirm => "__nf_conntrack_confirm",
        }
    }

    /// How many arguments it must take, where the programs look behind the first.
    pub fn arguments(self) -> Option<usize> {
        match self {
            Self::Alloc => Some(6),
            Self::EarlyDrop => Some(2),
            Self::Clash => Some(3),
            Self::Insert | Self::Free | Self::Confirm => None,
        }
    }

    /// Without the last two, the refusals at confirmation are known from the counters alone, and nobody
    /// knows by which interface an entry came. Probes do without the first.
    fn is_optional(self) -> bool {
        matches!(self, Self::Alloc | Self::Clash | Self::Confirm)
    }
}

/// Those that the running kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions {
    /// They are a module's.
    pub module: bool,
    /// With their number in BTF where that is how they are known.
    found: Vec<(HookedFunction, u32)>,
}

impl Functions {
    pub fn find(module: bool, find: impl Fn(HookedFunction) -> Result<u32>) -> Result<Self> {
        let mut found = Vec::new();
        for hook in HookedFunction::ALL {
            match find(hook) {
                Ok(id) => found.push((hook, id)),
                Err(_) if hook.is_optional() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { module, found })
    }

    /// Where it was not found out yet.
    pub fn unknown() -> Self {
        Self { module: false, found: Vec::new() }
    }

    pub fn get(&self, hook: HookedFunction) -> Option<u32> {
        self.found.iter().find(|(found, _)| *found == hook).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn one_that_is_missing_is_an_error_unless_it_can_be_done_without() {
        let without = |missing: HookedFunction| {
            Functions::find(true, |hook| if hook == missing { bail!("no") } else { Ok(7) })
        };
        assert!(without(HookedFunction::EarlyDrop).is_err());
        let functions = without(HookedFunction::Clash).unwrap();
        assert_eq!(
            (functions.get(HookedFunction::Free), functions.get(HookedFunction::Clash)),
            (Some(7), None)
        );
    }
}

//! From what was typed to the namespaces that are meant.

use anyhow::{Context, Result, bail};

use crate::{
    cli::{self, Which, Word},
    host::{
        kernel::privileges::{Privilege, Privileges},
        netns::{
            self, Netns, Target,
            visit::{Source, Visit, Visitor, netns_cookie},
        },
    },
    observe::{
        sampler::Scope,
        wanted::{Pattern, Patterns, Whose},
    },
    threads,
};

pub(super) fn scope(which: &Which, privileges: Privileges) -> Result<Scope> {
    if which.is_any() {
        return one(&cli::NetnsArg::All, privileges);
    }
    if let Some(wanted) = which.one() {
        return one(wanted, privileges);
    }
    if !privileges.has(Privilege::SysAdmin) {
        bail!(OTHERS);
    }
    let (mut targets, mut patterns) = (Vec::new(), Patterns::default());
    for word in &which.netns {
        match word {
            Word::One(cli::NetnsArg::All) => patterns.only.push(Pattern::exactly("*")),
            Word::One(wanted) => {
                let netns = named(wanted)?;
                targets.push(threads::apart("namespace", move || target(netns))??);
            }
            Word::Like(pattern) => patterns.only.push(pattern.clone()),
            Word::Not(pattern) => patterns.not.push(pattern.clone()),
        }
    }
    Ok(Scope::Some(targets, patterns))
}

/// Those that were asked for by name raise alarms whoever owns them. A pattern is no name: whoever
/// names his own processes after it must not raise one.
pub(super) fn whose(which: &Which, scope: &Scope) -> Whose {
    let is_named = match scope {
        Scope::Own | Scope::One(_) => true,
        Scope::Some(targets, patterns) => !targets.is_empty() && patterns.only.is_empty(),
        Scope::All => false,
    };
    which.owner.unwrap_or(if is_named { Whose::All } else { Whose::default() })
}

fn one(wanted: &cli::NetnsArg, privileges: Privileges) -> Result<Scope> {
    let may = privileges.has(Privilege::SysAdmin);
    let current = netns::current()?;
    let netns = match wanted {
        cli::NetnsArg::All if may => return Ok(Scope::All),
        cli::NetnsArg::All => return Ok(Scope::Own),
        cli::NetnsArg::Inode(inode) if *inode == current.inode => return Ok(Scope::Own),
        // Without it, others may be there and not be seen.
        cli::NetnsArg::Inode(_) if !may => bail!(OTHERS),
        _ => named(wanted)?,
    };
    if netns.inode == current.inode {
        return Ok(Scope::Own);
    }
    if !may {
        bail!(OTHERS);
    }
    // Going into it changes the thread.
    threads::apart("namespace", move || target(netns))?.map(Scope::One)
}

/// Namespaces that only such a process shows are not seen, and nothing else says so.
pub(super) fn unseen_processes(scope: &Scope, privileges: Privileges) -> Option<String> {
    const UNSEEN: &str = "namespaces that only processes with more capabilities show are not seen: \
                          needs CAP_SYS_PTRACE";
    let unseen = *scope == Scope::All && !privileges.has(Privilege::SysPtrace);
    unseen.then(|| UNSEEN.to_owned())
}

const OTHERS: &str = "looking into another network namespace needs CAP_SYS_ADMIN";

/// The namespace that this way leads to now.
fn target(netns: Netns) -> Result<Target> {
    match Visitor::new(Source::Procfs)?.enter(&netns, netns_cookie)? {
        Visit::Read(cookie) => Ok(Target::new(netns, cookie)),
        // It is shown as what it is: there, and not to be read.
        Visit::Refused(_) => Ok(Target::new(netns, None)),
        Visit::Gone => bail!("the network namespace {} is gone", netns.inode),
    }
}

/// The namespace that was asked for.
pub(super) fn named(wanted: &cli::NetnsArg) -> Result<Netns> {
    match wanted {
        cli::NetnsArg::All => bail!("\"all\" is more than one network namespace: name one"),
        cli::NetnsArg::Path(path) => netns::at(path),
        cli::NetnsArg::Inode(inode) => numbered(*inode),
        cli::NetnsArg::Name(name) => called(name)?.ok_or_else(|| no_such(name).into()),
        cli::NetnsArg::Word(word) => match (called(word)?, word.parse()) {
            (Some(netns), _) => Ok(netns),
            (None, Ok(inode)) => numbered(inode),
            (None, Err(_)) => Err(no_such(word).into()),
        },
    }
}

fn numbered(inode: u32) -> Result<Netns> {
    let mut found = netns::find()?;
    // Also where it cannot be looked for, one's own is there.
    let current = netns::current()?;
    found.entry(current.inode).or_insert(current);
    found.remove(&inode).with_context(|| {
        format!(
            "no network namespace that ctwatch can see has the name or the inode number {inode}; \
             `lsns -t net` lists them"
        )
    })
}

fn called(name: &str) -> Result<Option<Netns>> {
    let mut named = netns::by_name(name)?;
    if named.len() > 1 {
        let shown = |netns: &Netns| format!("{} (inode {})", netns.path.display(), netns.inode);
        let shown: Vec<_> = named.iter().map(shown).collect();
        let said = format!("{name:?} is ambiguous; pass a path or an inode number");
        return Err(Naming { said, names: shown.join(", ") }.into());
    }
    Ok(named.pop())
}

fn no_such(name: &str) -> Naming {
    let found = netns::find().unwrap_or_default();
    let mut known: Vec<_> = found.into_values().filter_map(|netns| netns.name).collect();
    known.truncate(20);
    let said = format!("no network namespace has the name {name:?}; there are");
    Naming { said, names: known.join(", ") }
}

/// An error that lists names: not with --mask.
#[derive(Debug)]
pub(super) struct Naming {
    said: String,
    names: String,
}

impl std::fmt::Display for Naming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.said, self.names)
    }
}

impl std::error::Error for Naming {}

impl Naming {
    pub(super) fn masked(&self) -> String {
        format!("{}: with --mask that is not said", self.said)
    }
}

//! Whether connection tracking is there, and as what.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

/// What is said of conntrack, where it is known not to be there, and nowhere else.
pub const ABSENT: &str = "nf_conntrack is not loaded";

/// There from the moment `nf_conntrack` is ready, built in or not, where sysctls can be seen.
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const SYSCTLS: &str = "/proc/sys/net";
const MODULES: &str = "/sys/module";
const LIST: &str = "/proc/modules";
/// Of the calling thread's namespace, on kernels with `CONFIG_NF_CONNTRACK_PROCFS`.
const COUNTERS: &str = "/proc/thread-self/net/stat/nf_conntrack";
const CONNTRACK: &str = "nf_conntrack";
const CTNETLINK: &str = "nf_conntrack_netlink";
const CTNETLINK_STATE: &str = "/sys/module/nf_conntrack_netlink/initstate";
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// Whether conntrack is there: the one answer that every verb goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Loaded(Life),
    /// The kernel's own files say that it is not there.
    Absent,
    /// Nothing says that it is there, and what would say so is hidden: what that is, and what to
    /// do.
    OutOfSight(String),
}

/// One life of the table: from when conntrack came to when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It never goes.
    BuiltIn,
    /// The number of the module's folder in sysfs, which is made anew with each loading.
    Module(u64),
    /// It is there, and sysfs, which says as what, is hidden.
    Unknown,
}

impl Life {
    /// A number that no other life since boot has; 0 where there is only one, `None` where it
    /// cannot be seen.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::BuiltIn => Some(0),
            Self::Module(number) => Some(number),
            Self::Unknown => None,
        }
    }
}

/// What of the kernel's own files can be seen.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// `/proc` is there: without it no namespace has a name.
    proc: bool,
    /// [`LIMIT`] is.
    limit: bool,
    /// It is not, and the folder where it would be is the kernel's own.
    no_limit: bool,
    /// As what [`MODULES`] has it; `None`: that is hidden.
    sysfs: Option<Folder>,
    /// Whether [`LIST`] has it; `None`: that is hidden, or this kernel has no modules.
    listed: Option<bool>,
    /// A module's type information, or its counters, show it.
    traces: bool,
}

/// `nf_conntrack` in sysfs: built in it has a folder too, for its parameters.
#[derive(Clone, Copy, Debug)]
enum Folder {
    None,
    BuiltIn,
    Live(u64),
    /// Not ready yet, or about to go.
    Passing,
}

impl View {
    fn take() -> Self {
        let sysfs = folder();
        let is_there = |path: &str| Path::new(path).exists();
        // Where it says nothing new, it is not looked for: the kernel goes through the files of all
        // namespaces to find it.
        let is_open = matches!(sysfs, None | Some(Folder::None));
        let limit = is_open && is_there(LIMIT);
        let above = Path::new(LIMIT).parent().filter(|folder| is_open && folder.exists());
        let is_procfs = || is_of(above.unwrap_or(Path::new(SYSCTLS)), PROC_SUPER_MAGIC);
        Self {
            proc: is_there("/proc/self/ns/net"),
            limit,
            no_limit: is_open && !limit && is_procfs(),
            sysfs,
            // The kernel writes it anew for each reader.
            listed: if sysfs.is_none() { listed(CONNTRACK) } else { None },
            traces: sysfs.is_none()
                && (is_there("/sys/kernel/btf/nf_conntrack") || is_there(COUNTERS)),
        }
    }

    fn presence(self) -> Presence {
        let life = match self.sysfs {
            Some(Folder::Live(number)) => Some(Life::Module(number)),
            Some(Folder::BuiltIn) => Some(Life::BuiltIn),
            // Its parameters would be there, whatever else says that it is not.
            Some(Folder::None) if !self.limit => return Presence::Absent,
            Some(Folder::None) => Some(Life::BuiltIn),
            Some(Folder::Passing) => return Presence::Absent,
            None if self.limit || self.traces || self.listed == Some(true) => Some(Life::Unknown),
            None => None,
        };
        match life {
            _ if !self.proc => Presence::OutOfSight(
                "/proc cannot be seen here, and with it no network namespace (a chroot?): mount it \
                 (mount -t proc proc /proc)"
                    .to_owned(),
            ),
            Some(life) => Presence::Loaded(life),
            // It would be a module, and is none; or built in, and would have its sysctl.
            None if self.listed == Some(false) && self.no_limit => Presence::Absent,
            None => Presence::OutOfSight(self.hidden()),
        }
    }

    fn hidden(self) -> String {
        let mut hidden = vec![MODULES];
        if self.listed.is_none() {
            hidden.push(LIST);
        }
        if !self.no_limit {
            hidden.push(SYSCTLS);
        }
        format!(
            "whether nf_conntrack is loaded cannot be seen here: {} cannot be seen (a container, a \
             chroot, or systemd's ProcSubset=pid and ProtectKernelTunables hide such); run ctwatch \
             where /sys and /proc are as the kernel has them",
            hidden.join(", ")
        )
    }
}

fn is_of(place: &Path, magic: impl TryInto<u64>) -> bool {
    let kind = statfs(place).ok().and_then(|place| u64::try_from(place.f_type).ok());
    kind.is_some() && kind == magic.try_into().ok()
}

fn folder() -> Option<Folder> {
    let modules = Path::new(MODULES);
    // Hidden, as by a mount of something else, it says nothing.
    if !is_of(modules, SYSFS_MAGIC) {
        return None;
    }
    let folder = modules.join(CONNTRACK);
    let Ok(metadata) = folder.metadata() else { return Some(Folder::None) };
    Some(match fs::read_to_string(folder.join("initstate")) {
        Ok(state) if state.trim_end() == "live" => Folder::Live(metadata.ino()),
        Ok(_) => Folder::Passing,
        // Only modules have a state.
        Err(_) => Folder::BuiltIn,
    })
}

/// Whether the list of modules has this one, ready.
fn listed(name: &str) -> Option<bool> {
    let text =
        fs::read_to_string(LIST).ok().filter(|_| is_of(Path::new(LIST), PROC_SUPER_MAGIC))?;
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Some(lines.any(|fields| fields.first() == Some(&name) && fields.contains(&"Live")))
}

pub fn presence() -> Presence {
    View::take().presence()
}

/// `None` where conntrack is not there, or not to be seen.
pub fn life() -> Option<Life> {
    match presence() {
        Presence::Loaded(life) => Some(life),
        Presence::Absent | Presence::OutOfSight(_) => None,
    }
}

/// Whether ctnetlink is there: it answers, and asking it loads nothing. `None` where that cannot be
/// seen.
pub fn ctnetlink() -> Option<bool> {
    CtnetlinkModule::look().is_there()
}

/// By what it is known whether ctnetlink is there.
#[derive(Clone, Copy, Debug)]
pub enum CtnetlinkModule {
    /// It never goes.
    BuiltIn,
    /// Its folder in sysfs says it.
    Folder,
    /// The list of modules does.
    List,
}

impl CtnetlinkModule {
    pub fn look() -> Self {
        if life() == Some(Life::BuiltIn) || !can_be_loaded() {
            return Self::BuiltIn;
        }
        if is_of(Path::new(MODULES), SYSFS_MAGIC) { Self::Folder } else { Self::List }
    }

    /// Whether it is there now; `None` where that cannot be seen.
    pub fn is_there(self) -> Option<bool> {
        match self {
            Self::BuiltIn => Some(true),
            // Only modules have a state.
            Self::Folder => Some(Path::new(CTNETLINK_STATE).exists()),
            Self::List => listed(CTNETLINK),
        }
    }
}

/// Asking ctnetlink would make the kernel load its module, and with it, if need be, conntrack; or
/// nobody can tell.
pub fn ctnetlink_would_be_loaded() -> bool {
    ctnetlink() != Some(true)
}

/// Whether this kernel loads modules at all, as far as that can be seen.
pub fn can_be_loaded() -> bool {
    // Both are hidden by a /proc that shows processes only.
    Path::new(LIST).exists() || !Path::new("/proc/version").exists()
}

/// Whether asking for something that this module answers would make the kernel load it: it is on
/// disk, and neither loaded nor built in.
pub fn would_be_loaded(name: &str) -> bool {
    // Where nobody knows, it is not tried.
    is_on_disk(name).unwrap_or(true)
}

/// Whether this module can be loaded and is not there yet; `None` where nobody knows.
pub fn is_on_disk(name: &str) -> Option<bool> {
    if Path::new(MODULES).join(name).exists() {
        return Some(false);
    }
    let folder = Path::new("/lib/modules").join(crate::host::kernel_release());
    match crate::host::machine::files::text(folder.join("modules.dep")) {
        Ok(text) => Some(text.lines().any(|line| is_of_module(line, name))),
        // Without modules nothing can be loaded.
        Err(_) => (!can_be_loaded()).then_some(false),
    }
}

/// `kernel/net/netfilter/nf_tables.ko.xz: …`
pub fn is_of_module(line: &str, name: &str) -> bool {
    let file = line.split(':').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    file.split(".ko").next().is_some_and(|stem| stem.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_is_neither_loaded_nor_absent() {
        let all = View { proc: true, no_limit: true, ..View::default() };
        let seen = |sysfs| View { sysfs: Some(sysfs), ..all };
        for (view, presence) in [
            (seen(Folder::Live(7)), Presence::Loaded(Life::Module(7))),
            (seen(Folder::BuiltIn), Presence::Loaded(Life::BuiltIn)),
            (seen(Folder::None), Presence::Absent),
            (View { no_limit: false, ..seen(Folder::None) }, Presence::Absent),
            (seen(Folder::Passing), Presence::Absent),
            // Sysctls are hidden, and sysfs says it.
            (View { no_limit: false, ..seen(Folder::BuiltIn) }, Presence::Loaded(Life::BuiltIn)),
            (View { limit: true, ..all }, Presence::Loaded(Life::Unknown)),
            (View { traces: true, no_limit: false, ..all }, Presence::Loaded(Life::Unknown)),
            (View { listed: Some(true), ..all }, Presence::Loaded(Life::Unknown)),
            (View { listed: Some(false), ..all }, Presence::Absent),
        ] {
            assert_eq!(view.presence(), presence, "{view:?}");
        }
        for (view, hidden) in [
            // Built in, or not there: nobody can tell.
            (all, "/sys/module, /proc/modules cannot be seen"),
            (View { no_limit: false, ..all }, "/sys/module, /proc/modules, /proc/sys/net cannot"),
            (View { listed: Some(false), no_limit: false, ..all }, "/sys/module, /proc/sys/net"),
            (View { proc: false, ..seen(Folder::BuiltIn) }, "mount -t proc proc /proc"),
        ] {
            let presence = view.presence();
            let Presence::OutOfSight(why) = &presence else { panic!("{view:?}: {presence:?}") };
            assert!(why.contains(hidden), "{view:?}: {why}");
        }
        assert_eq!((Life::Unknown.number(), Life::BuiltIn.number()), (None, Some(0)));
    }

    #[test]
    fn a_module_is_found_by_its_whole_name() {
        assert!(is_of_module("kernel/net/netfilter/nf_tables.ko.xz: a b", "nf_tables"));
        assert!(is_of_module("kernel/net/netfilter/nf-tables.ko:", "nf_tables"));
        assert!(!is_of_module("kernel/net/netfilter/nf_tables_x.ko:", "nf_tables"));
        assert!(!is_of_module("kernel/x.ko: kernel/net/netfilter/nf_tables.ko", "nf_tables"));
    }
}

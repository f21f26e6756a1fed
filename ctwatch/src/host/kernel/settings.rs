//! What the files of sysctl.d and modprobe.d want of conntrack, and what this kernel has on disk.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::modules;
use crate::{
    family::tracks,
    host::netns::visit::netns_cookie,
    record::facts::{Barred, BucketsBy, Known, LoadedModule, Setting, Slab, Writable},
};

/// Where files of one name hide each other: the first wins.
/// <https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html>
const FOLDERS: [&str; 4] = ["/etc", "/run", "/usr/local/lib", "/usr/lib"];
/// Read last by sysctl --system, and so it wins.
const SYSCTL_CONF: &str = "/etc/sysctl.conf";

/// In the order in which they are applied: for each name the last one counts.
pub fn sysctls() -> Vec<Setting> {
    let mut files = files_of("sysctl.d");
    let last = PathBuf::from(SYSCTL_CONF);
    // Often 99-sysctl.conf is a link to it.
    if !files.iter().any(|file| fs::canonicalize(file).is_ok_and(|file| file == last)) {
        files.push(last);
    }
    files.iter().flat_map(|file| settings(&file.display().to_string(), &text_of(file))).collect()
}

/// Modules whose loading runs some other command.
pub fn barred() -> Vec<Barred> {
    let files = files_of("modprobe.d");
    files.iter().flat_map(|file| installs(&file.display().to_string(), &text_of(file))).collect()
}

fn text_of(file: &Path) -> String {
    crate::host::machine::files::text(file).unwrap_or_default()
}

fn files_of(kind: &str) -> Vec<PathBuf> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        let entries = fs::read_dir(Path::new(folder).join(kind)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "conf") {
                files.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    files.into_values().collect()
}

/// `net.netfilter.nf_conntrack_max = 65536`, with `/` for `.` too, and `-` before it.
pub fn settings(file: &str, text: &str) -> Vec<Setting> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let setting = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().trim_start_matches('-').trim().replace('/', ".");
        // The old names are links to the new ones.
        let name = key
            .strip_prefix("net.netfilter.")
            .or_else(|| key.strip_prefix("net.").filter(|key| *key == "nf_conntrack_max"))?;
        let name = name.to_owned();
        let value = value.trim().to_owned();
        name.starts_with("nf_conntrack").then(|| Setting { file: file.to_owned(), name, value })
    };
    lines.filter_map(setting).collect()
}

/// `install nf_conntrack /bin/true`; `blacklist` does not keep a module from being loaded by
/// another that needs it.
pub fn installs(file: &str, text: &str) -> Vec<Barred> {
    let barred = |line: &str| {
        let mut words = line.split_whitespace();
        let module = words.next().filter(|word| *word == "install").and(words.next())?;
        words.next()?;
        let module = module.replace('-', "_");
        tracks(&module).then(|| Barred { file: file.to_owned(), module })
    };
    text.lines().filter_map(barred).collect()
}

/// Modules that track connections and that this kernel has: on disk, or loaded, be it from elsewhere.
pub fn trackers(release: &str, loaded: &Known<Vec<LoadedModule>>) -> Known<Vec<String>> {
    let path = format!("/lib/modules/{release}/modules.dep");
    let on_disk = crate::host::machine::files::text(&path)
        .map_err(|error| format!("cannot read {path}: {error}"));
    trackers_of(on_disk, loaded)
}

/// By the text of `modules.dep`.
pub fn trackers_of(
    on_disk: Known<String>,
    loaded: &Known<Vec<LoadedModule>>,
) -> Known<Vec<String>> {
    let loaded = loaded.iter().flatten().map(|module| module.name.clone());
    let mut names: Vec<String> = loaded.filter(|name| tracks(name)).collect();
    match on_disk {
        Ok(text) => names.extend(family_of(&text)),
        Err(why) if names.is_empty() => return Err(why),
        Err(_) => {}
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// `kernel/net/netfilter/nf_conntrack.ko.xz: kernel/net/…`
pub fn family_of(dependencies: &str) -> Vec<String> {
    let name = |line: &str| {
        let file = line.split(':').next()?.rsplit('/').next()?;
        let name = file.split(".ko").next()?.replace('-', "_");
        tracks(&name).then_some(name)
    };
    let mut names: Vec<String> = dependencies.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

pub fn loaded() -> Known<Vec<LoadedModule>> {
    const PATH: &str = "/proc/modules";
    match fs::read_to_string(PATH) {
        Ok(text) => Ok(modules_of(&text)),
        // A kernel without modules has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !modules::can_be_loaded() => {
            Ok(Vec::new())
        }
        Err(error) => Err(format!("cannot read {PATH}: {error}")),
    }
}

/// `nf_conntrack 196608 3 nf_nat,nft_ct, Live 0x0000000000000000`
pub fn modules_of(text: &str) -> Vec<LoadedModule> {
    let module = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let references = fields.nth(1)?.parse().unwrap_or(0);
        let users = fields.next()?.split(',').filter(|user| !matches!(*user, "" | "-"));
        // `[permanent]` stands among them.
        let users = users.filter(|user| !user.starts_with('[')).map(str::to_owned).collect();
        Some(LoadedModule { name, references, users })
    };
    text.lines().filter_map(module).collect()
}

pub fn slab() -> Known<Slab> {
    const PATH: &str = "/proc/slabinfo";
    let text = fs::read_to_string(PATH).map_err(|error| format!("cannot read {PATH}: {error}"))?;
    slab_of(&text).ok_or_else(|| format!("{PATH} names no nf_conntrack"))
}

/// `nf_conntrack 1024 1050 320 25 2 : tunables …`: in use, in all, bytes of one. Before Linux 4.8
/// each namespace had one of its own.
pub fn slab_of(slabinfo: &str) -> Option<Slab> {
    let mut slab = None;
    for line in slabinfo.lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap_or_default();
        let rest = name.strip_prefix("nf_conntrack");
        if !rest
            .is_some_and(|rest| rest.trim_start_matches('_').bytes().all(|b| b.is_ascii_hexdigit()))
        {
            continue;
        }
        let mut number = |nth| fields.nth(nth)?.parse::<u64>().ok();
        let (Some(objects), Some(size)) = (number(1), number(0)) else { continue };
        let sum = slab.get_or_insert(Slab { objects: 0, size });
        sum.objects = sum.objects.saturating_add(objects);
    }
    slab
}

/// With what the number of buckets can be set from the calling thread's namespace.
pub fn buckets_by() -> Known<BucketsBy> {
    let mode = |path: &str| fs::metadata(path).ok().map(|file| file.permissions().mode());
    buckets_by_of(
        mode("/proc/sys/net/netfilter/nf_conntrack_buckets"),
        mode("/sys/module/nf_conntrack/parameters/hashsize"),
        netns_cookie().is_some(),
    )
}

/// By the modes of the two files. `cookies`: the kernel is so new that only in the first namespace
/// the sysctl can be written, and in all others nothing can.
pub fn buckets_by_of(
    sysctl: Option<u32>,
    hashsize: Option<u32>,
    cookies: bool,
) -> Known<BucketsBy> {
    const WRITABLE: u32 = 0o200;
    let is_writable = |mode: Option<u32>| mode.is_some_and(|mode| mode & WRITABLE != 0);
    if is_writable(sysctl) {
        return Ok(BucketsBy::Sysctl);
    }
    if cookies {
        return Err("only the first network namespace sets nf_conntrack_buckets".to_owned());
    }
    match is_writable(hashsize) {
        true => Ok(BucketsBy::Hashsize),
        false => Err("neither nf_conntrack_buckets nor hashsize can be written".to_owned()),
    }
}

/// Whether the limit, and with it the buckets, may be set by root here. All namespaces but the first
/// show them as read-only.
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_standalone.c> `nf_conntrack_standalone_init_sysctl`
pub fn limit_is() -> Writable {
    use std::os::unix::fs::MetadataExt;
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    let mode = fs::metadata(PATH).map(|file| file.mode());
    let is_mounted_so = rustix::fs::statvfs(PATH)
        .is_ok_and(|place| place.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    match mode {
        Ok(mode) if mode & 0o222 == 0 => Writable::OtherNamespace,
        Ok(_) if is_mounted_so => Writable::ReadOnly,
        _ => Writable::Yes,
    }
}

/// Bytes of memory that this machine has.
pub fn memory() -> Known<u64> {
    const PATH: &str = "/proc/meminfo";
    let text = fs::read_to_string(PATH).map_err(|error| format!("cannot read {PATH}: {error}"))?;
    memory_of(&text).ok_or_else(|| format!("{PATH} says no MemTotal"))
}

/// `MemTotal:  2048 kB`, in bytes.
pub fn memory_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_files_are_read_as_sysctl_does() {
        let text = "# a\n;b\n net.netfilter.nf_conntrack_max=1\n\
                    -net/netfilter/nf_conntrack_tcp_timeout_time_wait = 30\n\
                    net.nf_conntrack_max = 2\nnet.ipv4.ip_forward=1\nnonsense\n";
        let found: Vec<_> =
            settings("f", text).into_iter().map(|setting| (setting.name, setting.value)).collect();
        let expected = [
            ("nf_conntrack_max", "1"),
            ("nf_conntrack_tcp_timeout_time_wait", "30"),
            ("nf_conntrack_max", "2"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn only_an_install_line_bars_a_module() {
        let text = "blacklist nf_conntrack\ninstall nf-nat /bin/true\ninstall nf_conntrack\n\
                    install snd /bin/true\n# install iptable_nat /bin/true\n";
        let found = installs("f", text);
        assert_eq!(found, [Barred { file: "f".to_owned(), module: "nf_nat".to_owned() }]);
    }

    #[test]
    fn modules_and_who_uses_them() {
        let text = "nf_conntrack 196608 3 nf_nat,nft_ct, Live 0x0\nnf_nat 1 0 - Live 0x0\n\
                    x 1 1 [permanent], Live 0x0\nshort\n";
        let found = modules_of(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].users, ["nf_nat", "nft_ct"]);
        assert_eq!((found[0].references, found[1].users.len(), found[2].users.len()), (3, 0, 0));
    }

    #[test]
    fn buckets_are_set_by_what_is_writable() {
        let (read_only, writable, secret) = (Some(0o100_444), Some(0o100_644), Some(0o100_600));
        assert_eq!(buckets_by_of(writable, secret, true), Ok(BucketsBy::Sysctl));
        assert_eq!(buckets_by_of(writable, None, false), Ok(BucketsBy::Sysctl));
        assert_eq!(buckets_by_of(read_only, secret, false), Ok(BucketsBy::Hashsize));
        assert_eq!(buckets_by_of(None, secret, false), Ok(BucketsBy::Hashsize));
        assert!(buckets_by_of(read_only, secret, true).is_err(), "another namespace");
        assert!(buckets_by_of(read_only, read_only, false).is_err());
    }

    #[test]
    fn modules_on_disk_by_any_compression() {
        let text = "kernel/net/netfilter/nf_conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz\n\
                    kernel/net/ipv4/netfilter/iptable_nat.ko: x\nkernel/net/x.ko.zst:\n";
        assert_eq!(family_of(text), ["iptable_nat", "nf_conntrack"]);
    }

    #[test]
    fn trackers_are_those_that_this_kernel_has() {
        // What a switch with Linux 4.1 shows.
        let text = "nf_conntrack_ipv4 20480 1 - Live 0x0\n\
                    nf_defrag_ipv4 16384 1 nf_conntrack_ipv4, Live 0x0\n\
                    nf_conntrack 94208 3 nf_conntrack_ipv4,nf_nat_ipv4,nf_nat, Live 0x0\n";
        let loaded = Ok(modules_of(text));
        let on_disk = "kernel/net/ipv4/netfilter/iptable_nat.ko: x\n\
                       kernel/net/ipv4/netfilter/nf_nat_ipv4.ko: x\n\
                       kernel/net/ipv4/netfilter/nf_conntrack_ipv4.ko: x\n\
                       kernel/net/ipv4/netfilter/nf_defrag_ipv4.ko:\n";
        let found = trackers_of(Ok(on_disk.to_owned()), &loaded).unwrap();
        assert_eq!(found, ["iptable_nat", "nf_conntrack", "nf_conntrack_ipv4", "nf_nat_ipv4"]);
        let none = || Err("no modules.dep".to_owned());
        assert_eq!(trackers_of(none(), &loaded).unwrap(), ["nf_conntrack", "nf_conntrack_ipv4"]);
        assert!(trackers_of(none(), &Ok(Vec::new())).is_err());
    }

    #[test]
    fn the_slab_of_entries_is_known_from_those_of_other_things() {
        let text = "slabinfo - version: 2.1\n# name <active_objs>\n\
                    nf_conntrack_expect 5 5 208 1 1 : x\nnf_conntrack 1024 1050 320 25 2 : x\n";
        assert_eq!(slab_of(text), Some(Slab { objects: 1050, size: 320 }));
        assert_eq!(
            slab_of("nf_conntrack_1 1 2 304 1\nnf_conntrack_2 1 3 304 1\n").unwrap().objects,
            5
        );
        assert_eq!(slab_of("nf_conntrack 1\nnf_conntrack x y z\n"), None);
        assert_eq!(memory_of("MemTotal:  2048 kB\n"), Some(2 << 20));
        assert_eq!(memory_of("MemTotal: x\n"), None);
    }
}

//! How the number of buckets is set on this kernel: commands, and files that persist it.

use crate::{
    facts::{BucketsBy, Facts, Presence},
    report::File,
};

/// What sets it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Buckets {
    pub(super) now: String,
    pub(super) undo: String,
    /// A line of a sysctl file, where that is how it persists.
    pub(super) sysctl: Option<(&'static str, u64)>,
    /// Other files that persist it.
    pub(super) files: Vec<File>,
    /// Where no file persists it: what does.
    pub(super) note: Option<String>,
}

const SYSCTL: &str = "nf_conntrack_buckets";
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// So many buckets, for a fix of this name; or why they cannot be set here.
pub(super) fn buckets(facts: &Facts, name: &str, wanted: u64) -> Result<Buckets, String> {
    let before = *facts.buckets.as_ref().map_err(Clone::clone)?;
    match facts.buckets_by.as_ref().map_err(Clone::clone)? {
        BucketsBy::Sysctl => Ok(Buckets {
            now: super::fixes::sysctl(SYSCTL, wanted),
            undo: super::fixes::sysctl(SYSCTL, before),
            sysctl: Some((SYSCTL, wanted)),
            files: Vec::new(),
            note: None,
        }),
        BucketsBy::Hashsize => {
            let is_module = facts.presence == Presence::Module;
            let options =
                format!("# Written by ctwatch doctor.\noptions nf_conntrack hashsize={wanted}\n");
            let file =
                File { path: format!("/etc/modprobe.d/ctwatch-{name}.conf"), content: options };
            Ok(Buckets {
                now: format!("echo {wanted} > {HASHSIZE}"),
                undo: format!("echo {before} > {HASHSIZE}"),
                sysctl: None,
                files: is_module.then_some(file).into_iter().collect(),
                note: (!is_module).then(|| {
                    format!(
                        "conntrack is built in: nf_conntrack.hashsize={wanted} on the kernel's \
                         command line persists it"
                    )
                }),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cases::facts, *};

    fn by(buckets_by: Result<BucketsBy, String>, presence: Presence) -> Facts {
        Facts { buckets_by, presence, ..facts(0) }
    }

    #[test]
    fn a_writable_sysctl_sets_the_buckets() {
        let facts = by(Ok(BucketsBy::Sysctl), Presence::Module);
        let set = buckets(&facts, "limit", 4096).unwrap();
        assert_eq!(set.now, "sysctl -w net.netfilter.nf_conntrack_buckets=4096");
        assert_eq!(set.undo, "sysctl -w net.netfilter.nf_conntrack_buckets=256");
        assert_eq!((set.sysctl, set.files.len()), (Some((SYSCTL, 4096)), 0));
    }

    #[test]
    fn hashsize_sets_them_where_the_sysctl_cannot() {
        let facts = by(Ok(BucketsBy::Hashsize), Presence::Module);
        let set = buckets(&facts, "limit", 4096).unwrap();
        assert_eq!(set.now, "echo 4096 > /sys/module/nf_conntrack/parameters/hashsize");
        assert_eq!(set.undo, "echo 256 > /sys/module/nf_conntrack/parameters/hashsize");
        assert_eq!(set.files[0].path, "/etc/modprobe.d/ctwatch-limit.conf");
        assert!(set.files[0].content.ends_with("\noptions nf_conntrack hashsize=4096\n"));
        assert_eq!((set.sysctl, set.note), (None, None));
    }

    #[test]
    fn a_kernel_without_the_module_gets_no_file_for_it() {
        let facts = by(Ok(BucketsBy::Hashsize), Presence::BuiltIn);
        let set = buckets(&facts, "limit", 4096).unwrap();
        assert!(set.files.is_empty() && set.note.unwrap().contains("nf_conntrack.hashsize=4096"));
    }

    #[test]
    fn nothing_is_set_where_neither_is_writable() {
        let facts = by(Err("neither".to_owned()), Presence::Module);
        assert_eq!(buckets(&facts, "limit", 4096).unwrap_err(), "neither");
    }
}

//! The number of buckets where no sysctl sets it: a parameter of the module does.

use super::report::{Check, File};
use crate::record::facts::{BucketsBy, Facts, Form};

/// How it is set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Buckets {
    pub(super) now: String,
    pub(super) undo: String,
    pub(super) check: Check,
    /// What persists it.
    pub(super) file: Option<File>,
    /// Where no file does: what does.
    pub(super) note: Option<String>,
}

pub(super) const SYSCTL: &str = "nf_conntrack_buckets";
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// For a fix of this name; `None` where the sysctl sets it, or nothing does.
pub(super) fn by_hashsize(facts: &Facts, name: &str, to: u64, from: u64) -> Option<Buckets> {
    if facts.buckets_by != Ok(BucketsBy::Hashsize) {
        return None;
    }
    let is_module = facts.form == Form::Module;
    let content = format!("# Written by ctwatch doctor.\noptions nf_conntrack hashsize={to}\n");
    let file = File { path: format!("/etc/modprobe.d/ctwatch-{name}.conf"), content };
    let note = format!(
        "conntrack is built in: nf_conntrack.hashsize={to} on the kernel's command line persists it"
    );
    Some(Buckets {
        now: format!("echo {to} > {HASHSIZE}"),
        undo: format!("echo {from} > {HASHSIZE}"),
        check: Check { command: format!("cat {HASHSIZE}"), prints: to.to_string() },
        file: is_module.then_some(file),
        note: (!is_module).then_some(note),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::cases::facts, *};

    fn by(buckets_by: Result<BucketsBy, String>, form: Form) -> Option<Buckets> {
        by_hashsize(&Facts { buckets_by, form, ..facts(0) }, "limit", 4096, 256)
    }

    #[test]
    fn hashsize_sets_them_where_the_sysctl_cannot() {
        let set = by(Ok(BucketsBy::Hashsize), Form::Module).unwrap();
        assert_eq!(set.now, "echo 4096 > /sys/module/nf_conntrack/parameters/hashsize");
        assert_eq!(set.undo, "echo 256 > /sys/module/nf_conntrack/parameters/hashsize");
        let file = set.file.unwrap();
        assert_eq!(file.path, "/etc/modprobe.d/ctwatch-limit.conf");
        assert!(file.content.ends_with("\noptions nf_conntrack hashsize=4096\n"));
        assert_eq!(set.note, None);
    }

    #[test]
    fn a_kernel_without_the_module_gets_no_file_for_it() {
        let set = by(Ok(BucketsBy::Hashsize), Form::BuiltIn).unwrap();
        assert!(set.file.is_none() && set.note.unwrap().contains("nf_conntrack.hashsize=4096"));
    }

    #[test]
    fn a_writable_sysctl_needs_no_hashsize() {
        assert_eq!(by(Ok(BucketsBy::Sysctl), Form::Module), None);
        assert_eq!(by(Err("neither".to_owned()), Form::Module), None);
    }
}

//! What to type and what to write, in the words of a shell.

pub(super) use crate::shell::quoted;
use crate::{
    facts::Namespace,
    report::{File, Fix},
};

/// Named after this program, as all files are, so that whoever finds it knows where it is from.
const UDEV_FILE: &str = "/etc/udev/rules.d/90-ctwatch-conntrack.rules";

/// A shell's command in this namespace; `None` where it has no name to enter it by.
pub(super) fn within(namespace: &Namespace, command: &str) -> Option<String> {
    if namespace.is_host() {
        return Some(command.to_owned());
    }
    let name = namespace.name.as_deref().filter(|_| namespace.by_ip)?;
    Some(format!("ip netns exec {} {command}", quoted(name)))
}

pub(super) fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w net.netfilter.{name}={value}")
}

/// Sysctls that last: the file, and, where conntrack is a module, what applies it when that is
/// loaded; at boot there is no such sysctl yet. Each fix has a file of its own, so that none undoes
/// another.
pub(super) fn sysctl_files(name: &str, values: &[(&str, u64)], is_module: bool) -> Vec<File> {
    let mut content = String::from("# Written by ctwatch doctor.\n");
    for (name, value) in values {
        content.push_str(&format!("net.netfilter.{name} = {value}\n"));
    }
    let mut files = vec![File { path: format!("/etc/sysctl.d/90-ctwatch-{name}.conf"), content }];
    if is_module {
        files.push(udev_rule());
    }
    files
}

/// <https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html>, example 3
pub(super) fn udev_rule() -> File {
    let content = "# Written by ctwatch doctor: conntrack's sysctls are there only once it is loaded.\n\
                   ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", \
                   RUN+=\"/sbin/sysctl --system\"\n";
    File { path: UDEV_FILE.to_owned(), content: content.to_owned() }
}

/// How to take back what was written.
pub(super) fn remove(files: &[File]) -> Vec<String> {
    files.iter().map(|file| format!("rm -f {}", quoted(&file.path))).collect()
}

pub(super) fn fix(title: &str) -> Fix {
    Fix {
        title: title.to_owned(),
        now: Vec::new(),
        files: Vec::new(),
        breaks: String::new(),
        undo: Vec::new(),
        expect: String::new(),
    }
}

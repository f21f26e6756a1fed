//! What to type and what to write, in the words of a shell.

pub(super) use super::shell::quoted;
use super::{
    buckets,
    case::Case,
    report::{Check, Elsewhere, File, Fix},
    settings,
};
use crate::record::facts::{Apply, BucketsBy, Form, Namespace, Tools, Writable};

/// Named after this program, as all files are, so that whoever finds it knows where it is from.
const OWN_FILES: &str = "/etc/sysctl.d/90-ctwatch-";
const UDEV_FILE: &str = "/etc/udev/rules.d/90-ctwatch-conntrack.rules";

pub(super) fn fix(title: &str) -> Fix {
    Fix { title: title.to_owned(), ..Fix::default() }
}

/// A shell's command in this namespace; `None` where nothing leads into it, or no tool does.
pub(super) fn within(tools: &Tools, namespace: &Namespace, command: &str) -> Option<String> {
    if namespace.is_own {
        return Some(command.to_owned());
    }
    if let Some(name) = namespace.name.as_deref().filter(|_| namespace.by_ip && tools.has("ip")) {
        return Some(format!("ip netns exec {} {command}", quoted(name)));
    }
    if !tools.has("nsenter") {
        return None;
    }
    match (&namespace.mount, namespace.pid) {
        (Some(path), _) => Some(format!("nsenter --net={} {command}", quoted(path))),
        (None, Some(pid)) => Some(format!("nsenter -t {pid} -n {command}")),
        (None, None) => None,
    }
}

/// The same, or why there is none.
pub(super) fn entered(
    tools: &Tools,
    namespace: &Namespace,
    command: &str,
) -> Result<String, String> {
    within(tools, namespace, command)
        .ok_or_else(|| "nothing leads into this namespace (nsenter is not here)".to_owned())
}

pub(super) fn sysctl(tools: &Tools, name: &str, value: impl std::fmt::Display) -> String {
    match tools.has("sysctl") {
        true => format!("sysctl -w net.netfilter.{name}={value}"),
        false => format!("sh -c 'echo {value} > /proc/sys/net/netfilter/{name}'"),
    }
}

/// A setting: its sysctl, what it is to be, and what it is.
pub(super) type Change<'a> = (&'a str, u64, u64);

/// Sets sysctls: all at once for the machine, or those of one namespace. Each fix has a file of its
/// own, so that none undoes another.
pub(super) fn set(
    case: &Case<'_>,
    of: Option<&Namespace>,
    file: &str,
    changes: &[Change<'_>],
    fix: &mut Fix,
) {
    let tools = &case.facts.tools;
    let command = |name: &str, value: u64| {
        let command = sysctl(tools, name, value);
        of.map_or(Some(command.clone()), |namespace| within(tools, namespace, &command))
    };
    let is_host = of.is_none_or(Namespace::is_host);
    let changed = || changes.iter().filter(|(_, to, from)| to != from);
    if let Some(place) = elsewhere(case, of) {
        let commands = changed().map(|(name, to, _)| sysctl(tools, name, to)).collect();
        fix.elsewhere = Some(Elsewhere { place, commands });
        return;
    }
    // Where no sysctl sets the buckets, they are none of those below.
    let sysctls: Vec<Change<'_>> = changes
        .iter()
        .copied()
        .filter(|(name, ..)| *name != buckets::SYSCTL || sysctl_sets_buckets(case))
        .collect();
    let buckets = changes.iter().find(|(name, to, from)| *name == buckets::SYSCTL && to != from);
    let buckets =
        buckets.and_then(|(_, to, from)| buckets::by_hashsize(case.facts, file, *to, *from));
    let changes = &sysctls;
    let changed = || changes.iter().filter(|(_, to, from)| to != from);
    fix.now.extend(buckets.iter().map(|buckets| buckets.now.clone()));
    fix.now.extend(changed().filter_map(|(name, to, _)| command(name, *to)));
    // The other way round: buckets before the limit, the limit before the buckets.
    fix.undo.extend(changed().rev().filter_map(|(name, _, from)| command(name, *from)));
    fix.undo.extend(buckets.iter().map(|buckets| buckets.undo.clone()));
    if let Some((name, to, _)) = changed().next_back() {
        fix.check = shows(tools, of, name, *to);
    } else if let Some(buckets) = &buckets {
        fix.check = Some(buckets.check.clone());
    }
    if !is_host {
        fix.lasts
            .push("as long as this namespace: each new one begins with the defaults".to_owned());
        return;
    }
    let mut kept = Vec::new();
    for (name, to, _) in changes {
        let place = settings::place(case, name, *to);
        fix.lasts.extend(
            place.lines.into_iter().filter(|line| !fix.lasts.contains(line)).collect::<Vec<_>>(),
        );
        if place.is_file {
            kept.push((*name, *to));
        }
    }
    fix.files = sysctl_files(case, file, &kept);
    if let Some(buckets) = buckets {
        fix.files.extend(buckets.file);
        fix.lasts.extend(buckets.note);
    }
    fix.undo.extend(remove(&fix.files));
}

/// Whether the sysctl of that name sets the buckets here.
fn sysctl_sets_buckets(case: &Case<'_>) -> bool {
    case.facts.buckets_by == Ok(BucketsBy::Sysctl)
}

/// Sets sysctls of the host that are written down already: what is to last is that they are applied.
pub(super) fn set_again(case: &Case<'_>, changes: &[Change<'_>], fix: &mut Fix) {
    let tools = &case.facts.tools;
    if let Some(place) = elsewhere(case, None) {
        let commands = changes.iter().map(|(name, to, _)| sysctl(tools, name, to)).collect();
        fix.elsewhere = Some(Elsewhere { place, commands });
        return;
    }
    fix.now.extend(changes.iter().map(|(name, to, _)| sysctl(tools, name, to)));
    fix.undo.extend(changes.iter().rev().map(|(name, _, from)| sysctl(tools, name, from)));
    if let Some((name, to, _)) = changes.last() {
        fix.check = shows(tools, None, name, *to);
    }
    for (name, to, _) in changes {
        let lines = settings::place(case, name, *to).lines;
        let new = lines.into_iter().filter(|line| !fix.lasts.contains(line)).collect::<Vec<_>>();
        fix.lasts.extend(new);
    }
    if case.facts.form == Form::Module {
        // They may be in any file.
        let by_prefix = matches!(tools.apply, Some(Apply::Prefix(_)));
        match udev_rule(tools).filter(|_| by_prefix) {
            Some(file) => fix.files.push(file),
            None => fix.lasts.push(
                "have the module loaded before files of sysctl.d are read: nothing here applies them \
                 when it is loaded later"
                    .to_owned(),
            ),
        }
    }
    fix.undo.extend(remove(&fix.files));
}

/// What shows that a sysctl is set.
fn shows(tools: &Tools, of: Option<&Namespace>, name: &str, value: u64) -> Option<Check> {
    let command = match tools.has("sysctl") {
        true => format!("sysctl -n net.netfilter.{name}"),
        false => format!("cat /proc/sys/net/netfilter/{name}"),
    };
    let command = match of {
        Some(namespace) => within(tools, namespace, &command)?,
        None => command,
    };
    Some(Check { command, prints: value.to_string() })
}

/// Where to type it, if that is not here.
fn elsewhere(case: &Case<'_>, of: Option<&Namespace>) -> Option<String> {
    match (case.facts.limit_is, of) {
        (Writable::OtherNamespace, None) => Some(
            "only the first network namespace of this machine may set nf_conntrack_max, \
             nf_conntrack_buckets and nf_conntrack_expect_max, for all of them, and this is another \
             one: on the host, outside of all containers (there, nsenter -t 1 -n leads into it)"
                .to_owned(),
        ),
        (Writable::ReadOnly, None) => Some(
            "/proc/sys is mounted read-only here: on the host, outside of this container".to_owned(),
        ),
        (Writable::ReadOnly, Some(namespace)) if namespace.is_host() => Some(
            "/proc/sys is mounted read-only here: on the host, in this container's network \
             namespace (nsenter -t PID -n before the command, PID any of its processes)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Sysctls that last: the file, and, where conntrack is a module, what applies it when that is
/// loaded; at boot there is no such sysctl yet.
fn sysctl_files(case: &Case<'_>, name: &str, values: &[(&str, u64)]) -> Vec<File> {
    if values.is_empty() {
        return Vec::new();
    }
    let mut content = String::from("# Written by ctwatch doctor.\n");
    for (name, value) in values {
        content.push_str(&format!("net.netfilter.{name} = {value}\n"));
    }
    let mut files = vec![File { path: format!("{OWN_FILES}{name}.conf"), content }];
    if case.facts.form == Form::Module {
        files.extend(udev_rule(&case.facts.tools));
    }
    files
}

/// Applies what is written down for conntrack, or at least what is written below, and nothing else,
/// when its module is loaded. `None` where nobody would read it.
/// <https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html>, example 3
fn udev_rule(tools: &Tools) -> Option<File> {
    let apply = match tools.apply.as_ref().filter(|_| tools.udev)? {
        Apply::Prefix(command) => command.clone(),
        // udev takes a single dollar for its own.
        Apply::File(sysctl) => {
            format!("/bin/sh -c 'for f in {OWN_FILES}*.conf; do {sysctl} -q -p $$f; done'")
        }
    };
    let content = format!(
        "# Written by ctwatch doctor: conntrack's sysctls are there only once it is loaded.\n\
         ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"{apply}\"\n"
    );
    Some(File { path: UDEV_FILE.to_owned(), content })
}

/// How to take back what was written.
pub(super) fn remove(files: &[File]) -> Vec<String> {
    files.iter().map(|file| format!("rm -f {}", quoted(&file.path))).collect()
}

/// Has the undo run by itself in two minutes: whoever locks himself out waits, and is back. `name`
/// is one that no other fix has.
pub(super) fn arm(tools: &Tools, name: &str, fix: &mut Fix) {
    const SECONDS: u32 = 120;
    let undo = fix.undo.join("; ");
    if tools.systemd && tools.has("systemd-run") {
        let unit = format!("ctwatch-undo-{name}");
        // systemd would take it for the name of a variable.
        let undo = quoted(&undo.replace('$', "$$"));
        fix.arm.push(format!(
            "systemd-run --unit={unit} --on-active={SECONDS} --timer-property=AccuracySec=1s /bin/sh \
             -c {undo}"
        ));
        fix.disarm.push(format!("systemctl stop {unit}.timer"));
        fix.undo.insert(0, format!("systemctl stop {unit}.timer 2> /dev/null || true"));
        return;
    }
    let token = format!("{}/ctwatch-undo-{name}", tools.run);
    // It outlives this shell, and does nothing once the token is gone.
    let waits = format!("trap \"\" HUP; sleep {SECONDS}; rm {token} && {{ {undo}; }}");
    fix.arm.push(format!(
        "(set -C; : > {token}) && {{ sh -c {} < /dev/null > /dev/null 2>&1 & }}",
        quoted(&waits)
    ));
    fix.disarm.push(format!("rm {token}"));
    fix.undo.insert(0, format!("rm -f {token}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_applies_only_what_is_conntracks() {
        let rule = |apply| {
            let tools = Tools { udev: true, apply, ..Tools::default() };
            udev_rule(&tools).map(|file| file.content)
        };
        let prefix = rule(Some(Apply::Prefix("/x --prefix=/net/netfilter".to_owned()))).unwrap();
        assert!(prefix.contains("RUN+=\"/x --prefix=/net/netfilter\""), "{prefix}");
        let own = rule(Some(Apply::File("/sbin/sysctl".to_owned()))).unwrap();
        let wanted = "RUN+=\"/bin/sh -c 'for f in /etc/sysctl.d/90-ctwatch-*.conf; do /sbin/sysctl -q -p \
                      $$f; done'\"";
        assert!(own.contains(wanted) && !own.contains("--system"), "{own}");
        assert_eq!(rule(None), None);
    }
}

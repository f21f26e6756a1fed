//! Who had conntrack's modules loaded.

use jiff::tz::TimeZone;

use crate::model::{
    loading::{Asker, Loaded, Process},
    names::word,
};

/// What everybody looks for.
const CONNTRACK: &str = "nf_conntrack";

/// One line for each process that loaded some: `12:00:01 nf_conntrack was loaded by modprobe[12],
/// asked for by iptables[11] (iptable_nat), child of bash[7]; and with it nf_nat, iptable_nat`. Not
/// escaped.
pub fn notes(loaded: &[Loaded], zone: &TimeZone) -> Vec<String> {
    let together =
        |one: &Loaded, next: &Loaded| (&one.by, &one.asked_by) == (&next.by, &next.asked_by);
    loaded.chunk_by(together).filter_map(|one| note(one, zone)).collect()
}

/// What there was no room for in the kernel, of whatever is loaded.
pub fn untold(count: u64) -> String {
    format!("{count} more modules were asked for or loaded; by whom, and which, was not seen")
}

fn note(together: &[Loaded], zone: &TimeZone) -> Option<String> {
    let first = together.iter().find(|loaded| loaded.module == CONNTRACK).or(together.first())?;
    let time = first.time.to_zoned(zone.clone()).strftime("%H:%M:%S");
    let mut line = format!("{time} {} was loaded by {}", first.module, named(&first.by));
    if let Some(Asker { process, request, parent }) = &first.asked_by {
        line.push_str(&match request {
            Some(request) => format!(", asked for by {} ({request})", named(process)),
            None => format!(", child of {}", named(process)),
        });
        if let Some(parent) = parent {
            line.push_str(&format!(", child of {}", named(parent)));
        }
    }
    let others = together.iter().map(|loaded| loaded.module.as_str());
    let others: Vec<&str> = others.filter(|module| *module != first.module).collect();
    if !others.is_empty() {
        line.push_str(&format!("; and with it {}", others.join(", ")));
    }
    Some(line)
}

fn named(process: &Process) -> String {
    format!("{}[{}]", word(&process.comm), process.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixtures::loaded;

    #[test]
    fn one_line_for_what_was_loaded_together() {
        let request = Some("iptable_nat");
        let several = ["nf_defrag_ipv4", CONNTRACK, "nf_nat"].map(|module| loaded(module, request));
        let [line] = notes(&several, &TimeZone::UTC).try_into().unwrap();
        assert!(
            line.ends_with(
                " nf_conntrack was loaded by modprobe[12], asked for by iptables[11] (iptable_nat), \
                 child of bash[7]; and with it nf_defrag_ipv4, nf_nat"
            ),
            "{line}"
        );
        assert_eq!(notes(&[], &TimeZone::UTC).len(), 0);
    }

    #[test]
    fn what_different_processes_loaded_is_told_apart() {
        let by_hand = loaded(CONNTRACK, None);
        let unseen = Loaded { asked_by: None, ..loaded("nf_nat", None) };
        let [first, second] = notes(&[by_hand, unseen], &TimeZone::UTC).try_into().unwrap();
        assert!(first.ends_with(" was loaded by modprobe[12], child of iptables[11]"), "{first}");
        assert!(second.ends_with(" nf_nat was loaded by modprobe[12]"), "{second}");
    }
}

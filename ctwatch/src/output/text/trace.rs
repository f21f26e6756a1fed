//! One dropped packet, one line.

use std::io::{self, Write};

use crate::{
    model::names::{address, protocol, word},
    output::{
        DropLine,
        drop::{comm, has_known_ports, reason},
        escape::escaped,
        services::Services,
    },
    record::sample::Owner,
};

/// `12:00:00.123456 table_full udp 17 src=10.1.1.1 dst=10.2.2.2 sport=1024 dport=53 (domain)
/// in=eth0 netns=rt`
pub fn line(out: &mut impl Write, line: &DropLine<'_>, services: &Services) -> io::Result<()> {
    let DropLine { time, zone, event, named, owner } = line;
    let time = time.to_zoned((*zone).clone()).strftime("%H:%M:%S%.6f");
    let name = protocol(event.protocol);
    write!(out, "{time} {} {name} {}", reason(event), event.protocol)?;
    write!(out, " src={}", address(event.family, &event.src))?;
    write!(out, " dst={}", address(event.family, &event.dst))?;
    if has_known_ports(event) {
        let (sport, dport) = (u16::from_be(event.sport), u16::from_be(event.dport));
        write!(out, " sport={sport} dport={dport}")?;
        if let Some(service) = services.name(&name, dport) {
            write!(out, " ({service})")?;
        }
    }
    match (&named.interface, event.ifindex) {
        (_, 0) => {}
        (Some(interface), _) => write!(out, " in={}", escaped(&word(interface)))?,
        (None, index) => write!(out, " in=#{index}")?,
    }
    match (named.workload.shown(named.netns.as_deref()), named.inode) {
        (Some(netns), _) => write!(out, " netns={}", escaped(&word(&netns)))?,
        (None, Some(inode)) => write!(out, " netns=net:[{inode}]")?,
        (None, None) => write!(out, " netns=#{}", event.netns)?,
    }
    match owner {
        Owner::Host => {}
        Owner::User(uid) => write!(out, " owner={uid}")?,
        Owner::Unknown(_) => write!(out, " owner=unknown")?,
    }
    if let Some(comm) = comm(event) {
        write!(out, " comm={} pid={}", escaped(&word(&comm)), event.pid)?;
    }
    writeln!(out)
}

/// So many more were dropped than were shown.
pub fn more(out: &mut impl Write, more: u64) -> io::Result<()> {
    writeln!(out, "*** {more} more were dropped and are not shown (--rate)")
}

/// So many more may have been wanted: by the name of their namespace, which is not known.
pub fn undecided(out: &mut impl Write, undecided: u64) -> io::Result<()> {
    writeln!(
        out,
        "*** {undecided} more were dropped in network namespaces that are not found, or not yet: \
         whether --netns means them is not known"
    )
}

pub fn end(out: &mut impl Write, shown: u64, dropped: u64) -> io::Result<()> {
    writeln!(out, "--- {shown} of {dropped} drops shown")
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::trace::Event;

    use super::*;
    use crate::{output::json::trace as json, record::sample::Named};

    fn event() -> Event {
        let mut event = Event {
            netns: 7,
            sport: 1024_u16.to_be(),
            dport: 53_u16.to_be(),
            protocol: 17,
            family: 2,
            ifindex: 3,
            ..Event::default()
        };
        event.src[..4].copy_from_slice(&[10, 1, 1, 1]);
        event.dst[..4].copy_from_slice(&[10, 2, 2, 2]);
        event
    }

    fn lines(event: &Event, named: &Named) -> (String, String) {
        of_owner(event, named, &Owner::Host)
    }

    fn of_owner(event: &Event, named: &Named, owner: &Owner) -> (String, String) {
        let dropped = DropLine {
            time: jiff::Timestamp::UNIX_EPOCH,
            zone: &jiff::tz::TimeZone::UTC,
            event,
            named,
            owner,
        };
        let (mut as_text, mut as_json) = (Vec::new(), Vec::new());
        line(&mut as_text, &dropped, &Services::parse("domain 53/udp\n")).unwrap();
        json::line(&mut as_json, &dropped).unwrap();
        (String::from_utf8(as_text).unwrap(), String::from_utf8(as_json).unwrap())
    }

    #[test]
    fn a_drop_in_conntracks_own_words() {
        let named = Named {
            workload: Default::default(),
            netns: Some("r\u{1b}t".to_owned()),
            inode: Some(9),
            interface: Some("eth0".to_owned()),
        };
        let (text, json) = lines(&event(), &named);
        assert!(
            text.ends_with(
                " table_full udp 17 src=10.1.1.1 dst=10.2.2.2 sport=1024 dport=53 (domain) in=eth0 \
                 netns=\"r\\u{1b}t\"\n"
            ),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["src"], &json["dport"]), (&"10.1.1.1".into(), &53.into()));
        assert_eq!((&json["iface"], &json["comm"]), (&"eth0".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_strangers_drop_says_whose_it_is() {
        let unknown = Owner::Unknown("no \u{1b}way".to_owned());
        for (owner, mark, object) in [
            (Owner::Host, "", serde_json::json!("host")),
            (Owner::User(1000), " owner=1000", serde_json::json!(1000)),
            (unknown, " owner=unknown", serde_json::Value::Null),
        ] {
            let (text, json) = of_owner(&event(), &Named::default(), &owner);
            assert!(text.ends_with(&format!(" netns=#7{mark}\n")), "{text}");
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["netns"]["owner"], object, "{json}");
            let why = json["netns"]["owner_unknown"].as_str();
            assert_eq!(why.is_some(), owner.uid().is_none(), "{json}");
        }
    }

    #[test]
    fn each_object_says_of_which_kind_it_is() {
        let said = |say: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
            let mut out = Vec::new();
            say(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let end = "{\"schema\":1,\"type\":\"end\",\"shown\":3,\"dropped\":4}\n";
        assert_eq!(said(&|out| json::end(out, 3, 4)), end);
        let more = "{\"schema\":1,\"type\":\"more\",\"more\":2}\n";
        assert_eq!(said(&|out| json::more(out, 2)), more);
        let undecided = "{\"schema\":1,\"type\":\"undecided\",\"undecided\":2}\n";
        assert_eq!(said(&|out| json::undecided(out, 2)), undecided);
        let (_, drop) = lines(&event(), &Named::default());
        assert!(drop.starts_with("{\"schema\":1,\"type\":\"drop\",\"time\":"), "{drop}");
    }

    #[test]
    fn no_name_adds_a_field() {
        let mut event = Event { ifindex: 3, pid: 42, ..event() };
        event.comm[..15].copy_from_slice(b"x netns=a pid=1");
        let named = Named {
            workload: Default::default(),
            netns: Some("n comm=sh".to_owned()),
            inode: Some(9),
            interface: Some("e=1".to_owned()),
        };
        let (text, _) = lines(&event, &named);
        let fields = " in=\"e=1\" netns=\"n comm=sh\" comm=\"x netns=a pid=1\" pid=42\n";
        assert!(text.ends_with(fields), "{text}");
    }

    #[test]
    fn a_drop_in_a_pod_names_the_pod() {
        let mut named = Named {
            workload: crate::record::workload::Workload {
                pod: Some("coredns-0".to_owned()),
                namespace: Some("kube-system".to_owned()),
                container: None,
            },
            netns: Some("4711".to_owned()),
            inode: Some(9),
            interface: None,
        };
        let (text, json) = lines(&event(), &named);
        assert!(text.ends_with(" in=#3 netns=kube-system/coredns-0\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let netns = serde_json::json!({
            "cookie": 7, "inode": 9, "name": "4711", "owner": "host", "pod": "coredns-0", "namespace": "kube-system"
        });
        assert_eq!(json["netns"], netns);
        named.workload.pod = Some("a b".to_owned());
        let (text, _) = lines(&event(), &named);
        assert!(text.ends_with(" netns=\"kube-system/a b\"\n"), "{text}");
    }

    #[test]
    fn a_drop_of_this_hosts_own_names_the_process() {
        let mut event = Event { ifindex: 0, pid: 42, reason: 1, ..event() };
        event.comm[..5].copy_from_slice(b"a\x1b[2J");
        let (text, json) = lines(&event, &Named::default());
        assert!(text.contains(" clash udp "), "{text}");
        assert!(text.ends_with(" netns=#7 comm=\"a\\u{1b}[2J\" pid=42\n"), "{text}");
        assert!(json.contains(r#""pid":42"#) && !json.contains('\u{1b}'), "{json}");
    }
}

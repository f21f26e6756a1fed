//! Rewrites entries of `conntrack -L -o xml` and `-o save` as plain `conntrack -L` prints them, so that one parser
//! reads all forms.
//! <https://git.netfilter.org/libnetfilter_conntrack/tree/src/conntrack/snprintf_xml.c>

use crate::model::names::protocol_number;

const CUT: &str = "it is cut off";

/// `None`: the line has neither form. An empty answer: it belongs to the form, and holds no entry.
pub(super) fn as_listed(line: &[u8]) -> Option<Result<String, &'static str>> {
    match line {
        [b'<', ..] => {
            let text = std::str::from_utf8(line).ok()?;
            let text = text.trim();
            match text {
                "<conntrack>" | "</conntrack>" => Some(Ok(String::new())),
                _ if text.starts_with("<flow>") => Some(of_xml(text)),
                _ => None,
            }
        }
        [b'-', b'A', b' ', b'-', ..] => Some(of_save(std::str::from_utf8(line).ok()?)),
        _ => None,
    }
}

/// Addresses and ports of one direction.
#[derive(Default)]
struct Direction {
    source: String,
    destination: String,
    source_port: String,
    destination_port: String,
}

/// The words of an entry, unchecked: the parser of plain lines checks them.
#[derive(Default)]
struct Said {
    protocol: String,
    protocol_name: String,
    time: String,
    state: String,
    original: Direction,
    reply: Direction,
    zone: String,
    is_unreplied: bool,
    is_assured: bool,
}

impl Direction {
    fn text(&self) -> String {
        let Self { source, destination, source_port, destination_port } = self;
        let mut out = format!("src={source} dst={destination}");
        for (name, port) in [("sport", source_port), ("dport", destination_port)] {
            if !port.is_empty() {
                out += &format!(" {name}={port}");
            }
        }
        out
    }
}

impl Said {
    fn line(&self) -> Result<String, &'static str> {
        let Self { protocol, protocol_name, time, state, original, reply, zone, .. } = self;
        if original.source.is_empty() || reply.destination.is_empty() {
            return Err(CUT);
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let name = if is_name(protocol_name) { protocol_name } else { "unknown" };
        let mut out = format!("{name} {protocol} {time} {state} {}", original.text());
        if self.is_unreplied {
            out += " [UNREPLIED]";
        }
        out += &format!(" {}", reply.text());
        if self.is_assured {
            out += " [ASSURED]";
        }
        if !zone.is_empty() {
            out += &format!(" zone={zone}");
        }
        // A plain line that is whole ends with it.
        Ok(out + " use=1")
    }
}

/// `<flow><meta direction="original"><layer3 …><src>…</src>…</flow>`: conntrack prints an entry in one line.
fn of_xml(text: &str) -> Result<String, &'static str> {
    if !text.ends_with("</flow>") {
        return Err(CUT);
    }
    let mut said = Said::default();
    let mut is_reply = false;
    for tag in text.split('<').skip(1) {
        let (tag, value) = tag.split_once('>').ok_or(CUT)?;
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let value = value.trim();
        let direction = if is_reply { &mut said.reply } else { &mut said.original };
        match name {
            "flow" if text.matches("<flow>").count() > 1 => return Err("two entries in one line"),
            "meta" => is_reply = attribute(attributes, "direction") == Some("reply"),
            "layer4" => {
                let of = |name| attribute(attributes, name).unwrap_or_default().to_owned();
                (said.protocol, said.protocol_name) = (of("protonum"), of("protoname"));
            }
            "src" => value.clone_into(&mut direction.source),
            "dst" => value.clone_into(&mut direction.destination),
            "sport" => value.clone_into(&mut direction.source_port),
            "dport" => value.clone_into(&mut direction.destination_port),
            "state" => value.clone_into(&mut said.state),
            "timeout" => value.clone_into(&mut said.time),
            "zone" => value.clone_into(&mut said.zone),
            "unreplied/" => said.is_unreplied = true,
            "assured/" => said.is_assured = true,
            _ => {}
        }
    }
    said.line()
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = attributes.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// `-A -t 299 -u SEEN_REPLY,ASSURED -s … -d … -r … -q … -p udp --sport 1000 … --reply-port-src 53 …`
fn of_save(text: &str) -> Result<String, &'static str> {
    let mut said = Said { is_unreplied: true, ..Said::default() };
    let mut words = text.split_whitespace().skip(1);
    while let Some(option) = words.next() {
        let value = words.next().ok_or(CUT)?;
        let place = match option {
            "-t" => &mut said.time,
            "-s" => &mut said.original.source,
            "-d" => &mut said.original.destination,
            "-r" => &mut said.reply.source,
            "-q" => &mut said.reply.destination,
            "--sport" => &mut said.original.source_port,
            "--dport" => &mut said.original.destination_port,
            "--reply-port-src" => &mut said.reply.source_port,
            "--reply-port-dst" => &mut said.reply.destination_port,
            "--state" => &mut said.state,
            "-w" => &mut said.zone,
            "-p" => {
                let number = protocol_number(value).ok_or("an unknown protocol")?;
                (said.protocol, said.protocol_name) = (number.to_string(), value.to_owned());
                continue;
            }
            "-u" => {
                said.is_unreplied = !value.split(',').any(|word| word == "SEEN_REPLY");
                said.is_assured = value.split(',').any(|word| word == "ASSURED");
                continue;
            }
            _ => continue,
        };
        value.clone_into(place);
    }
    if said.protocol.is_empty() {
        return Err(CUT);
    }
    said.line()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::netfilter::listing,
        record::entry::{Held, Left},
    };

    const XML: &str = "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\">\
        <src>192.0.2.1</src><dst>192.0.2.2</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\">\
        <sport>1000</sport><dport>80</dport></layer4></meta><meta direction=\"reply\"><layer3 \
        protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.2</src><dst>192.0.2.1</dst></layer3><layer4 \
        protonum=\"6\" protoname=\"tcp\"><sport>8080</sport><dport>1000</dport></layer4></meta><meta \
        direction=\"independent\"><state>ESTABLISHED</state><timeout>299</timeout><mark>0</mark>\
        <zone>7</zone><use>1</use><id>1414436919</id><assured/></meta></flow>";
    const SAVE: &str = "-A -t 299 -u SEEN_REPLY,ASSURED -s 192.0.2.1 -d 192.0.2.2 -r 10.0.0.2 -q \
        192.0.2.1 -p tcp --sport 1000 --dport 80 --reply-port-src 8080 --reply-port-dst 1000 --state \
        ESTABLISHED -w 7";
    const PLAIN: &str = "tcp 6 299 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=1000 dport=80 \
        src=10.0.0.2 dst=192.0.2.1 sport=8080 dport=1000 [ASSURED] mark=0 zone=7 use=1";

    fn held(line: &str) -> Held {
        let listed = as_listed(line.as_bytes()).map(Result::unwrap);
        let line = listed.unwrap_or_else(|| line.to_owned());
        listing::entry(1, line.as_bytes()).unwrap().held
    }

    #[test]
    fn all_forms_say_the_same() {
        assert_eq!(held(XML), held(PLAIN));
        assert_eq!(held(SAVE), held(PLAIN));
        assert_eq!(held(PLAIN).left, Left::Seconds(299));
    }

    #[test]
    fn an_echo_that_nobody_answered_is_read() {
        let xml = "<flow><meta direction=\"original\"><layer3 protonum=\"10\" protoname=\"ipv6\">\
            <src>fd00::1</src><dst>fd00::2</dst></layer3><layer4 protonum=\"58\" \
            protoname=\"icmpv6\"></layer4></meta><meta direction=\"reply\"><layer3 protonum=\"10\" \
            protoname=\"ipv6\"><src>fd00::2</src><dst>fd00::1</dst></layer3><layer4 protonum=\"58\" \
            protoname=\"icmpv6\"></layer4></meta><meta direction=\"independent\">\
            <timeout>29</timeout><mark>0</mark><use>1</use><id>1</id><unreplied/></meta></flow>";
        let entry = held(xml);
        assert_eq!((entry.key.family, entry.key.protocol), (10, 58));
        assert!(!entry.status.is_replied() && !entry.status.is_assured());
        let save = "-A -t 29 -u UNSET -s fd00::1 -d fd00::2 -r fd00::2 -q fd00::1 -p icmpv6 \
                    --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7";
        assert_eq!(held(save), entry);
    }

    #[test]
    fn what_is_cut_off_is_no_entry() {
        let of = |text: &str| as_listed(text.as_bytes());
        for at in [30, 200, 400, XML.len() - 1] {
            assert_eq!(of(&XML[..at]), Some(Err(CUT)), "{at}");
        }
        assert_eq!(of(&format!("{XML}{XML}")), Some(Err("two entries in one line")));
        assert_eq!(of("-A -t 299 -u SEEN_REPLY -s 192.0.2.1 -d"), Some(Err(CUT)));
        assert_eq!(of("<conntrack>"), Some(Ok(String::new())));
        for other in ["-A FORWARD -j ACCEPT", "<html>", "tcp 6 1 src=1.1.1.1"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}

//! What services are called, in the words of `/etc/services`. Nothing is ever looked up elsewhere.

use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Services {
    names: HashMap<(String, u16), String>,
    /// By each name, aliases too: protocol and port.
    ports: HashMap<String, Vec<(String, u16)>>,
}

impl Services {
    /// `domain  53/udp  # comment`; what is malformed is passed over.
    pub fn parse(text: &str) -> Self {
        let mut services = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = port.split_once('/') else { continue };
            let Ok(port) = port.parse() else { continue };
            let names = &mut services.names;
            names.entry((protocol.to_owned(), port)).or_insert_with(|| name.to_owned());
            for name in words.chain([name]) {
                let ports = services.ports.entry(name.to_owned()).or_default();
                ports.push((protocol.to_owned(), port));
            }
        }
        services
    }

    /// The port of this name; of this protocol, where one is named. An error where there is none,
    /// or more than one.
    pub fn port(&self, name: &str, protocol: Option<&str>) -> Result<u16, String> {
        let known = self.ports.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_it = |of: &str| protocol.is_none_or(|protocol| protocol == of);
        let mut ports = known.iter().filter(|(of, _)| is_it(of)).map(|(_, port)| *port);
        let Some(first) = ports.next() else {
            let of = protocol.map_or_else(String::new, |protocol| format!("{protocol} "));
            return Err(format!("no {of}service is called {name:?} in /etc/services"));
        };
        match ports.find(|port| *port != first) {
            None => Ok(first),
            Some(other) => Err(format!(
                "{name:?} is port {first} or {other} in /etc/services: name the number, or --proto"
            )),
        }
    }

    pub(super) fn name(&self, protocol: &str, port: u16) -> Option<&str> {
        self.names.get(&(protocol.to_owned(), port)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_service_counts_and_nonsense_does_not() {
        let text = "# services\nssh 22/tcp\nother 22/tcp\nbad\nworse x/tcp\nworst 99999/tcp\n";
        let services = Services::parse(text);
        assert_eq!(services.name("tcp", 22), Some("ssh"));
        assert_eq!(services.name("udp", 22), None);
        assert_eq!(services.names.len(), 1);
    }

    #[test]
    fn a_service_has_one_port_or_is_refused() {
        let text = "domain 53/tcp\ndomain 53/udp\nhttp 80/tcp www # web\nx 1/tcp\nx 2/udp\n";
        let services = Services::parse(text);
        assert_eq!(services.port("domain", None), Ok(53));
        assert_eq!(services.port("www", Some("tcp")), Ok(80));
        assert_eq!(services.port("x", Some("udp")), Ok(2));
        for (name, protocol, why) in [
            ("x", None, "port 1 or 2"),
            ("http", Some("udp"), "no udp service"),
            ("web", None, "no service"),
        ] {
            let refused = services.port(name, protocol).unwrap_err();
            assert!(refused.contains(why), "{name}: {refused}");
        }
    }
}

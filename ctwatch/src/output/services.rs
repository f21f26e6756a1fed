//! What services are called, in the words of `/etc/services`. Nothing is ever looked up elsewhere.

use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub struct Services(HashMap<(String, u16), String>);

impl Services {
    /// `domain  53/udp  # comment`; what is malformed is passed over.
    pub fn parse(text: &str) -> Self {
        let mut services = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = port.split_once('/') else { continue };
            let Ok(port) = port.parse() else { continue };
            services.entry((protocol.to_owned(), port)).or_insert_with(|| name.to_owned());
        }
        Self(services)
    }

    pub(super) fn name(&self, protocol: &str, port: u16) -> Option<&str> {
        self.0.get(&(protocol.to_owned(), port)).map(String::as_str)
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
        assert_eq!(services.0.len(), 1);
    }
}

//! Addresses of the calling thread's namespace: those that packets to this host itself bear.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What cannot be read is not among them.
pub fn addresses() -> Vec<IpAddr> {
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let mut found: Vec<IpAddr> =
        ipv4(&read("fib_trie").unwrap_or_default()).into_iter().map(IpAddr::from).collect();
    found.extend(ipv6(&read("if_inet6").unwrap_or_default()).into_iter().map(IpAddr::from));
    found
}

/// `|-- 10.99.1.1`, and below it `/32 host LOCAL`; each is there twice.
pub fn ipv4(trie: &str) -> Vec<Ipv4Addr> {
    let (mut last, mut found) = (None, Vec::new());
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// `fd990001000000000000000000000001 02 40 00 80 down0`
pub fn ipv6(text: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    text.lines().filter_map(address).map(Ipv6Addr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_told_from_routes() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.99.1.0\n        /24 link UNICAST\n\
                    \x20    |-- 10.99.1.1\n        /32 host LOCAL\n     |-- 10.99.1.255\n        \
                    /32 link BROADCAST\nLocal:\n     |-- 10.99.1.1\n        /32 host LOCAL\n";
        assert_eq!(ipv4(trie), [Ipv4Addr::new(10, 99, 1, 1)]);
        let text = "fd990001000000000000000000000001 02 40 00 80 down0\nnonsense\n";
        assert_eq!(ipv6(text), ["fd99:1::1".parse::<Ipv6Addr>().unwrap()]);
    }
}

//! Where a packet's transport header is, behind the extension headers of IPv6. Pure, so that the same
//! code runs in the kernel and in the tests.

/// At most so many extension headers are read: by RFC 8200 each occurs once at most, destination options
/// twice.
/// <https://www.rfc-editor.org/rfc/rfc8200#section-4.1>
pub const MOST: usize = 6;

/// In words that unroll: kernels before Linux 5.3 take no loops.
const EACH: [(); MOST] = [(); MOST];

/// The length of an IPv6 header.
const HEADER: u32 = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// What is behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Of the last extension header where what is behind it cannot be read.
    pub protocol: u8,
    /// How far it is from the beginning of the packet; `None` where it is not in this packet, which
    /// is a later fragment, or cannot be read.
    pub at: Option<u32>,
}

/// As the kernel finds it for conntrack: `ipv6_skip_exthdr`. `read` gives eight bytes at a distance
/// from the beginning of the packet, where they are there.
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv6/exthdrs_core.c>
#[inline(always)]
pub fn transport(first: u8, read: impl Fn(u32) -> Option<[u8; 8]>) -> Transport {
    let (mut protocol, mut at) = (first, HEADER);
    for () in EACH {
        if !is_extension(protocol) {
            return Transport { protocol, at: Some(at) };
        }
        let Some([next, length, high, low, ..]) = read(at) else {
            return Transport { protocol, at: None };
        };
        at += match protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        let is_later = protocol == FRAGMENT && (high != 0 || low & 0xf8 != 0);
        protocol = next;
        if is_later {
            return Transport { protocol, at: None };
        }
    }
    let at = (!is_extension(protocol)).then_some(at);
    Transport { protocol, at }
}

/// Whether something else may be behind it.
#[inline(always)]
pub fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    /// Behind the header of a packet that begins like this.
    fn walked(first: u8, rest: &[u8]) -> Transport {
        transport(first, |at| rest.get(at as usize - 40..)?.first_chunk().copied())
    }

    fn header(next: u8, length: u8) -> Vec<u8> {
        let mut header = vec![0; 8 * (usize::from(length) + 1)];
        (header[0], header[1]) = (next, length);
        header
    }

    #[test]
    fn ports_are_found_behind_extension_headers() {
        assert_eq!(walked(17, &[]), Transport { protocol: 17, at: Some(40) });
        let options = [header(60, 1), header(43, 0), header(17, 2)].concat();
        assert_eq!(walked(0, &options), Transport { protocol: 17, at: Some(40 + 16 + 8 + 24) });
        // An authentication header counts in words of four bytes.
        let mut authentication = vec![0; 24];
        (authentication[0], authentication[1]) = (6, 4);
        assert_eq!(walked(51, &authentication), Transport { protocol: 6, at: Some(64) });
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let first = [17, 0, 0, 1, 0, 0, 0, 7];
        assert_eq!(walked(44, &first), Transport { protocol: 17, at: Some(48) });
        for offset in [[0, 8], [1, 0], [0xff, 0xf9]] {
            let later = [17, 0, offset[0], offset[1], 0, 0, 0, 7];
            assert_eq!(walked(44, &later), Transport { protocol: 17, at: None });
        }
    }

    #[test]
    fn what_does_not_end_is_not_guessed() {
        let cut = header(17, 0);
        assert_eq!(walked(0, &cut[..7]), Transport { protocol: 0, at: None });
        let six = header(60, 0).repeat(MOST - 1);
        let ends = [&six[..], &header(17, 0)].concat();
        assert_eq!(walked(60, &ends), Transport { protocol: 17, at: Some(40 + 8 * 6) });
        let many = header(60, 0).repeat(20);
        assert_eq!(walked(60, &many), Transport { protocol: 60, at: None });
        // No more to come: RFC 8200, section 4.7.
        assert_eq!(walked(59, &[]), Transport { protocol: 59, at: Some(40) });
    }
}

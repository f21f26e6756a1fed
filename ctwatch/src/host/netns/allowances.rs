//! What a cloud's network counts of this machine's interfaces: it tracks connections too, up to an
//! allowance, and drops what is over that before this kernel sees it.
//! <https://github.com/torvalds/linux/blob/v6.12/drivers/net/ethernet/amazon/ena/ena_ethtool.c>
//! `ENA_STAT_ENI_ENTRY`

use std::{
    fs, io,
    os::{fd::AsRawFd, unix::net::UnixDatagram},
};

use crate::record::facts::Allowance;

const INTERFACES: &str = "/proc/thread-self/net/dev";
/// Each is asked for its driver.
const MOST_INTERFACES: usize = 1024;
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/ethtool.h>
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_DRIVER: u32 = 3;
const GET_STRINGS: u32 = 0x1b;
const GET_STATISTICS: u32 = 0x1d;
/// `ETH_SS_STATS`
const NAMES_OF_STATISTICS: u32 = 1;
/// `ETH_GSTRING_LEN`
const NAME: usize = 32;
/// `struct ethtool_drvinfo`, the driver's name in it, and how many statistics there are.
const DRIVER: usize = 196;
const DRIVER_NAME: std::ops::Range<usize> = 4..36;
const DRIVER_STATISTICS: usize = 180;
/// What comes before the data: `struct ethtool_gstrings`, `struct ethtool_stats`.
const STRINGS_HEAD: usize = 12;
const STATISTICS_HEAD: usize = 8;
/// More than any adapter of today has.
const MOST_STATISTICS: usize = 1 << 16;

/// Of the calling thread's namespace. What cannot be asked is not among them.
pub fn allowances() -> Vec<Allowance> {
    let text = fs::read_to_string(INTERFACES).unwrap_or_default();
    let Ok(socket) = UnixDatagram::unbound() else { return Vec::new() };
    let mut found = Vec::new();
    for interface in names(&text).take(MOST_INTERFACES) {
        let Ok((driver, count)) = driver(&socket, interface) else { continue };
        if driver != "ena" {
            continue;
        }
        if let Ok(counted) = of_interface(&socket, interface, count) {
            found.extend(allowance(interface, &counted));
        }
    }
    found
}

/// All that the driver of this interface counts, as `ethtool -S` lists it.
pub fn statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    let socket = UnixDatagram::unbound()?;
    let (_, count) = driver(&socket, interface)?;
    of_interface(&socket, interface, count)
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

fn allowance(interface: &str, counted: &[(String, u64)]) -> Option<Allowance> {
    let of = |name: &str| counted.iter().find(|(other, _)| other == name).map(|(_, count)| *count);
    Some(Allowance {
        interface: interface.to_owned(),
        exceeded: of("conntrack_allowance_exceeded")?,
        available: of("conntrack_allowance_available"),
    })
}

fn driver(socket: &UnixDatagram, interface: &str) -> io::Result<(String, usize)> {
    let mut answer = vec![0; DRIVER];
    put(&mut answer, 0, GET_DRIVER);
    ask(socket, interface, &mut answer)?;
    let count = get(&answer, DRIVER_STATISTICS) as usize;
    Ok((text(&answer[DRIVER_NAME]), count.min(MOST_STATISTICS)))
}

fn of_interface(
    socket: &UnixDatagram,
    interface: &str,
    count: usize,
) -> io::Result<Vec<(String, u64)>> {
    // The kernel writes as many as there are by then: with more queues there are more.
    let room = 2 * count + 256;
    let mut strings = vec![0; STRINGS_HEAD + room * NAME];
    put(&mut strings, 0, GET_STRINGS);
    put(&mut strings, 4, NAMES_OF_STATISTICS);
    ask(socket, interface, &mut strings)?;
    let named = get(&strings, 8) as usize;
    let mut values = vec![0; STATISTICS_HEAD + room * 8];
    put(&mut values, 0, GET_STATISTICS);
    put(&mut values, 4, u32::try_from(count).unwrap_or(0));
    ask(socket, interface, &mut values)?;
    let counted = get(&values, 4) as usize;
    if named != counted || named > room {
        return Err(io::Error::other("its statistics have changed"));
    }
    Ok(paired(&strings[STRINGS_HEAD..], &values[STATISTICS_HEAD..], named))
}

/// Each name with its value.
pub fn paired(strings: &[u8], values: &[u8], count: usize) -> Vec<(String, u64)> {
    let names = strings.chunks_exact(NAME).map(text);
    let values = values.chunks_exact(8).filter_map(|bytes| bytes.first_chunk());
    names.zip(values.map(|bytes| u64::from_ne_bytes(*bytes))).take(count).collect()
}

fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn put(buffer: &mut [u8], at: usize, value: u32) {
    buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn get(buffer: &[u8], at: usize) -> u32 {
    buffer.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

fn ask(socket: &UnixDatagram, interface: &str, buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: all of its fields may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::other("no interface has such a long name"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        // Signed on some machines and unsigned on others.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    // SAFETY: an open socket, a request that ends with a zero, and a buffer with room for the answer.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `ethtool -S` shows them on an instance of Amazon's.
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-network-performance-ena.html>
    const SHOWN: &str = "     bw_in_allowance_exceeded: 0
     bw_out_allowance_exceeded: 0
     pps_allowance_exceeded: 0
     conntrack_allowance_exceeded: 7
     linklocal_allowance_exceeded: 0
     conntrack_allowance_available: 136812
";

    fn shown() -> (Vec<u8>, Vec<u8>) {
        let (mut strings, mut values) = (Vec::new(), Vec::new());
        for line in SHOWN.lines() {
            let (name, value) = line.trim().split_once(": ").unwrap();
            let mut name = name.as_bytes().to_vec();
            name.resize(NAME, 0);
            strings.extend(name);
            values.extend(value.parse::<u64>().unwrap().to_ne_bytes());
        }
        (strings, values)
    }

    #[test]
    fn the_clouds_counters_are_found_by_their_names() {
        let (strings, values) = shown();
        let counted = paired(&strings, &values, 6);
        let found = allowance("ens5", &counted);
        let expected =
            Allowance { interface: "ens5".to_owned(), exceeded: 7, available: Some(136_812) };
        assert_eq!(found, Some(expected));
        // An older driver, and one of something else.
        let older = allowance("ens5", &paired(&strings, &values, 5)).unwrap();
        assert_eq!(older.available, None);
        assert_eq!(allowance("ens5", &paired(&strings, &values, 3)), None);
    }

    #[test]
    fn names_of_interfaces_are_before_the_colon() {
        let text = "Inter-|   Receive\n face |bytes    packets\n    lo: 1 2\n  ens5:3 4\n";
        assert_eq!(names(text).collect::<Vec<_>>(), ["lo", "ens5"]);
    }
}

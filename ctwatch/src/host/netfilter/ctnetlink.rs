//! The conntrack counters of one network namespace, from ctnetlink: what `conntrack -S` and
//! `conntrack -C` read. <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_netlink.c>

use std::time::Duration;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlaBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::{
    host::kernel::{config, modules},
    record::counters::CpuCounters,
};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS_CPU` and `…_GET_STATS`.
const GET_STATS_CPU: u16 = 1 << 8 | 4;
const GET_STATS: u16 = 1 << 8 | 5;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// What is dumped changed meanwhile: parts may be missing, or there twice.
/// <https://docs.kernel.org/userspace-api/netlink/intro.html#dump-consistency>
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
pub(super) const NFGENMSG: usize = 4;
const REQUEST_LEN: u32 = 16 + 4;
/// A namespace whose answer does not come is passed over, not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket in the namespace that the calling thread was in when it was opened.
///
/// An open socket keeps its namespace alive, so this lives for one reading only.
pub struct Ctnetlink {
    socket: Socket,
    sequence: u32,
    /// The last answer. The kernel makes them as large as there is room, up to 32 KiB.
    answer: Vec<u8>,
}

const ANSWER: usize = 64 << 10;

/// Whether all that was dumped is of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Dumped {
    Whole,
    /// It changed meanwhile, as the kernel says itself.
    Torn,
}

impl Dumped {
    pub(super) fn and(self, other: Self) -> Self {
        if self == Self::Whole { other } else { self }
    }
}

/// Reads again what changed while it was read, but not for ever.
pub(super) fn whole<T>(what: &str, mut read: impl FnMut() -> Result<(T, Dumped)>) -> Result<T> {
    const TRIES: u32 = 5;
    for _ in 0..TRIES {
        if let (read, Dumped::Whole) = read()? {
            return Ok(read);
        }
    }
    bail!("{what} changed each of the {TRIES} times that they were read")
}

/// Why ctnetlink is not to be asked here; `Ok` where it answers, and asking loads nothing.
pub fn answers() -> std::result::Result<(), String> {
    if modules::ctnetlink_would_be_loaded() {
        return Err("asking it would load its module".to_owned());
    }
    let answer = Ctnetlink::open().and_then(|mut socket| socket.entries());
    answer.map(|_| ()).map_err(explained)
}

/// A kernel without ctnetlink says that it does not understand the question.
pub fn explained(error: anyhow::Error) -> String {
    const UNKNOWN: [i32; 3] = [libc::EINVAL, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    let code = error.root_cause().downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error());
    match code.is_some_and(|code| UNKNOWN.contains(&code)) {
        true => format!("{error:#}: {}", config::why_not("CONFIG_NF_CT_NETLINK")),
        false => format!("{error:#}"),
    }
}

impl Ctnetlink {
    pub fn open() -> Result<Self> {
        Self::with(Vec::with_capacity(ANSWER))
    }

    /// With memory that another one had before.
    pub(in crate::host) fn with(mut answer: Vec<u8>) -> Result<Self> {
        answer.clear();
        answer.reserve(ANSWER);
        let socket = Socket::new(NETLINK_NETFILTER).context("cannot open a netfilter socket")?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )
        .context("cannot set a timeout on a netfilter socket")?;
        Ok(Self { socket, sequence: 0, answer })
    }

    /// Its memory, for the next one.
    pub(in crate::host) fn into_memory(self) -> Vec<u8> {
        self.answer
    }

    pub(in crate::host) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// How many entries there are, those not yet confirmed included.
    pub fn entries(&mut self) -> Result<u32> {
        self.stats(1)?.context("the kernel's answer has no CTA_STATS_GLOBAL_ENTRIES")
    }

    /// How many there may be.
    pub fn limit(&mut self) -> Result<u32> {
        self.stats(2)?.context("the kernel's answer has no CTA_STATS_GLOBAL_MAX_ENTRIES")
    }

    fn stats(&mut self, wanted: u16) -> Result<Option<u32>> {
        let mut value = None;
        // One answer is of one moment.
        let _ = self.ask(GET_STATS, GET_STATS, 0, |body| {
            value = attribute(body, wanted)?;
            Ok(())
        })?;
        Ok(value)
    }

    /// The counters of every possible CPU.
    pub fn counters(&mut self) -> Result<Vec<CpuCounters>> {
        let cpus = whole("the counters", || {
            let mut cpus = Vec::new();
            let dumped = self.ask(GET_STATS_CPU, GET_STATS_CPU, NLM_F_DUMP, |body| {
                cpus.push(cpu_counters(body)?);
                Ok(())
            })?;
            Ok((cpus, dumped))
        })?;
        if cpus.is_empty() {
            bail!("the kernel's answer has no CPU in it");
        }
        Ok(cpus)
    }

    /// Hands over the body of each message of a dump.
    pub(super) fn dump(
        &mut self,
        request: u16,
        reply: u16,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Dumped> {
        self.dump_of(request, reply, 0, &[], each)
    }

    /// As [`Self::dump`], of this family and with these attributes in the question; of any part of
    /// netfilter.
    pub(super) fn dump_of(
        &mut self,
        request: u16,
        reply: u16,
        family: u8,
        attributes: &[u8],
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Dumped> {
        self.sequence += 1;
        let mut message = message(request, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        message[HEADER] = family;
        message.extend_from_slice(attributes);
        let len = u32::try_from(message.len()).context("too long a question")?;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        self.send(&message, reply, true, each)
    }

    fn ask(
        &mut self,
        request: u16,
        reply: u16,
        flags: u16,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Dumped> {
        self.sequence += 1;
        let message = message(request, NLM_F_REQUEST | flags, self.sequence);
        self.send(&message, reply, flags & NLM_F_DUMP != 0, each)
    }

    fn send(
        &mut self,
        message: &[u8],
        reply: u16,
        dump: bool,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Dumped> {
        self.socket.send_to(message, &SocketAddr::new(0, 0), 0).context("cannot ask netfilter")?;
        let (mut each, mut dumped) = (each, Dumped::Whole);
        loop {
            self.answer.clear();
            let received = self.socket.recv_from(&mut self.answer, 0);
            let (_, from) = received.context("no answer from netfilter")?;
            if from.port_number() != 0 {
                continue;
            }
            let (complete, part) = messages(&self.answer, reply, self.sequence, dump, &mut each)?;
            dumped = dumped.and(part);
            if complete {
                return Ok(dumped);
            }
        }
    }
}

fn message(request: u16, flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + NFGENMSG);
    bytes.extend_from_slice(&REQUEST_LEN.to_ne_bytes());
    bytes.extend_from_slice(&request.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4 + NFGENMSG]);
    bytes
}

/// Hands the body of each answer in one datagram to `each`; true when the answer is complete, and
/// whether this part of it is whole.
pub fn messages(
    mut datagram: &[u8],
    reply: u16,
    sequence: u32,
    dump: bool,
    each: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<(bool, Dumped)> {
    let mut dumped = Dumped::Whole;
    while !datagram.is_empty() {
        let header = datagram.get(..HEADER).context("a netlink header is cut off")?;
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = datagram.get(HEADER..len).context("a netlink message is cut off")?;
        let ours = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) == sequence;
        if ours && field(6) & NLM_F_DUMP_INTR != 0 {
            dumped = Dumped::Torn;
        }
        match field(4) {
            _ if !ours => {}
            kind @ (NLMSG_ERROR | NLMSG_DONE) => {
                let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                if kind == NLMSG_DONE && code >= 0 {
                    return Ok((true, dumped));
                }
                return Err(std::io::Error::from_raw_os_error(code.wrapping_neg()))
                    .context("the kernel refused the question");
            }
            kind if kind == reply => {
                each(body)?;
                if !dump {
                    return Ok((true, dumped));
                }
            }
            kind => bail!("netfilter answered with message type {kind:#x}"),
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((false, dumped))
}

/// The attribute of this type, a big-endian 32-bit number.
pub fn attribute(body: &[u8], wanted: u16) -> Result<Option<u32>> {
    let attributes = body.get(NFGENMSG..).context("an answer without a netfilter header")?;
    for attribute in NlasIterator::new(attributes) {
        let attribute: NlaBuffer<&[u8]> = attribute.context("malformed netlink attributes")?;
        if attribute.kind() == wanted {
            let value = attribute.value().first_chunk().context("a counter of the wrong size")?;
            return Ok(Some(u32::from_be_bytes(*value)));
        }
    }
    Ok(None)
}

/// `enum ctattr_stats_cpu`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nfnetlink_conntrack.h>
pub fn cpu_counters(body: &[u8]) -> Result<CpuCounters> {
    let mut counters = CpuCounters::default();
    // nfgenmsg.res_id, big-endian, is the CPU.
    let [_, _, high, low] = *body.first_chunk().context("an answer without a netfilter header")?;
    counters.cpu = u16::from_be_bytes([high, low]);
    for attribute in NlasIterator::new(&body[NFGENMSG..]) {
        let attribute: NlaBuffer<&[u8]> = attribute.context("malformed netlink attributes")?;
        let Some(value) = attribute.value().first_chunk() else { continue };
        let value = u32::from_be_bytes(*value);
        match attribute.kind() {
            2 => counters.found = value,
            4 => counters.invalid = value,
            7 => counters.delete_list = Some(value),
            8 => counters.insert = value,
            9 => counters.insert_failed = value,
            10 => counters.drop = value,
            11 => counters.early_drop = value,
            12 => counters.error = value,
            13 => counters.search_restart = value,
            14 => counters.clash_resolve = value,
            15 => counters.chaintoolong = Some(value),
            _ => {}
        }
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = message(kind, 0, sequence);
        bytes.truncate(HEADER);
        bytes.extend_from_slice(body);
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    fn cpu_body(cpu: u16, attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend_from_slice(&cpu.to_be_bytes());
        for (kind, value) in attributes {
            body.extend_from_slice(&8u16.to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(&value.to_be_bytes());
        }
        body
    }

    #[test]
    fn a_dump_of_two_cpus_is_read_to_its_end() {
        let mut datagram = answer(GET_STATS_CPU, 7, &cpu_body(0, &[(10, 5), (9, 2)]));
        datagram.extend(answer(GET_STATS_CPU, 7, &cpu_body(1, &[(10, 6), (15, 1)])));
        datagram.extend(answer(NLMSG_DONE, 7, &[0; 4]));
        let mut cpus = Vec::new();
        let done = messages(&datagram, GET_STATS_CPU, 7, true, &mut |body| {
            cpus.push(cpu_counters(body)?);
            Ok(())
        });
        assert_eq!(done.unwrap(), (true, Dumped::Whole));
        assert_eq!((cpus[0].drop, cpus[0].insert_failed, cpus[0].chaintoolong), (5, 2, None));
        assert_eq!((cpus[1].cpu, cpus[1].drop, cpus[1].chaintoolong), (1, 6, Some(1)));
    }

    #[test]
    fn an_error_answer_carries_the_kernels_reason() {
        let datagram = answer(NLMSG_ERROR, 1, &(-libc::EPERM).to_ne_bytes());
        let error = messages(&datagram, GET_STATS, 1, false, &mut |_| Ok(())).unwrap_err();
        assert!(format!("{error:#}").contains("not permitted"), "{error:#}");
    }

    #[test]
    fn a_kernel_without_ctnetlink_names_its_option() {
        let said = |code: i32| {
            let datagram = answer(NLMSG_ERROR, 1, &(-code).to_ne_bytes());
            let read = messages(&datagram, GET_STATS, 1, false, &mut |_| Ok(()));
            explained(read.unwrap_err())
        };
        assert!(said(libc::EINVAL).contains("CONFIG_NF_CT_NETLINK"), "{}", said(libc::EINVAL));
        assert!(!said(libc::EPERM).contains("CONFIG_"), "{}", said(libc::EPERM));
    }

    #[test]
    fn an_answer_to_another_question_is_passed_over() {
        let datagram = answer(GET_STATS, 1, &cpu_body(0, &[(1, 99)]));
        let read = messages(&datagram, GET_STATS, 2, false, &mut |_| panic!());
        assert_eq!(read.unwrap(), (false, Dumped::Whole));
    }

    #[test]
    fn a_torn_dump_is_told_from_a_whole_one() {
        let torn = |mut message: Vec<u8>| {
            message[6..8].copy_from_slice(&(2 | NLM_F_DUMP_INTR).to_ne_bytes());
            message
        };
        let read =
            |datagram: &[u8]| messages(datagram, GET_STATS_CPU, 7, true, &mut |_| Ok(())).unwrap();
        let (cpu, done) =
            (answer(GET_STATS_CPU, 7, &cpu_body(0, &[])), answer(NLMSG_DONE, 7, &[0; 4]));
        assert_eq!(read(&[cpu.clone(), done.clone()].concat()), (true, Dumped::Whole));
        assert_eq!(read(&[torn(cpu.clone()), done.clone()].concat()), (true, Dumped::Torn));
        assert_eq!(read(&[cpu.clone(), torn(done.clone())].concat()), (true, Dumped::Torn));
        let others = torn(answer(GET_STATS_CPU, 6, &cpu_body(0, &[])));
        assert_eq!(read(&[others, done].concat()), (true, Dumped::Whole), "another's");
    }

    #[test]
    fn what_changes_is_read_again_but_not_for_ever() {
        let mut times = 0;
        let mut read = |torn: u32| {
            whole("rules", || {
                times += 1;
                Ok((times, if times > torn { Dumped::Whole } else { Dumped::Torn }))
            })
        };
        assert_eq!(read(2).unwrap(), 3);
        let error = format!("{:#}", read(u32::MAX).unwrap_err());
        assert_eq!(error, "rules changed each of the 5 times that they were read");
        assert_eq!(times, 8);
    }

    #[test]
    fn truncated_and_absurd_answers_are_errors_not_panics() {
        let mut whole = answer(GET_STATS_CPU, 7, &cpu_body(0, &[(10, 5), (9, 2)]));
        whole.extend(answer(NLMSG_DONE, 7, &[0; 4]));
        let read = |bytes: &[u8]| {
            let _ = messages(bytes, GET_STATS_CPU, 7, true, &mut |body| {
                cpu_counters(body)?;
                attribute(body, 1)?;
                Ok(())
            });
        };
        for len in 0..whole.len() {
            read(&whole[..len]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes);
            }
        }
    }
}

//! Who changes rules of nftables in the namespace that this process runs in: the kernel says it with each
//! change. Rules of iptables-legacy, and settings, are changed without a word.
//! <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_tables_api.c> `nf_tables_gen_notify`

use std::io::ErrorKind;

use anyhow::{Context, Result};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::{
    attributes::{attributes, be32},
    ctnetlink::NFGENMSG,
    nft,
};

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`
const NEWGEN: u16 = 10 << 8 | 15;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
const HEADER: usize = 16;
/// What is read in one go: more is left for the next time.
const MOST: usize = 10_000;
/// Who is told apart.
const CHANGERS: usize = 8;

/// A process that changed rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changer {
    pub pid: u32,
    pub name: String,
}

/// What was heard since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleNews {
    pub changers: Vec<Changer>,
    /// There were others, which were not heard or not told apart.
    pub is_cut: bool,
}

/// Only in this process' own namespace: a socket that is kept open keeps its namespace alive.
pub struct RuleListener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl RuleListener {
    /// `None` where there are no such rules: to listen would load the module.
    pub fn open() -> Result<Option<Self>> {
        if !nft::may_be_asked() {
            return Ok(None);
        }
        let mut socket =
            Socket::new(NETLINK_NETFILTER).context("cannot open a netfilter socket")?;
        socket.set_non_blocking(true).context("cannot set up a netfilter socket")?;
        socket.bind_auto().context("cannot bind a netfilter socket")?;
        socket.add_membership(GROUP).context("cannot listen to changes of rules")?;
        Ok(Some(Self { socket, buffer: Vec::with_capacity(64 << 10) }))
    }

    /// Takes in what has come by now, and waits for nothing. Whether rules were changed.
    pub fn hear(&mut self, news: &mut RuleNews) -> bool {
        let mut is_any = false;
        for _ in 0..MOST {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => is_any |= news.take(&self.buffer),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // More came than it could keep: the next one is heard again.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    (news.is_cut, is_any) = (true, true);
                }
                // There is nothing left, or nothing to be had.
                Err(_) => break,
            }
        }
        is_any
    }
}

impl RuleNews {
    /// Messages one after another; what is none is left out. Whether one says that rules were changed.
    fn take(&mut self, mut messages: &[u8]) -> bool {
        let mut is_any = false;
        while let Some(header) = messages.get(..HEADER) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(message) = messages.get(..length).filter(|_| length >= HEADER) else {
                break;
            };
            if u16::from_ne_bytes([header[4], header[5]]) == NEWGEN
                && let Some(body) = message.get(HEADER + NFGENMSG..)
            {
                self.change(body);
                is_any = true;
            }
            let padded = length.saturating_add(3) & !3;
            messages = messages.get(padded..).unwrap_or_default();
        }
        is_any
    }

    fn change(&mut self, body: &[u8]) {
        let (mut pid, mut name) = (0, String::new());
        let read = attributes(body, |kind, value| {
            match kind {
                NFTA_GEN_PROC_PID => {
                    pid = be32(value).unwrap_or(0);
                }
                NFTA_GEN_PROC_NAME => {
                    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                    name = String::from_utf8_lossy(&value[..end]).into_owned();
                }
                _ => {}
            }
            Ok(())
        });
        let changer = Changer { pid, name };
        if read.is_err() || changer.name.is_empty() {
            self.is_cut = true;
        } else if !self.changers.contains(&changer) {
            match self.changers.len() < CHANGERS {
                true => self.changers.push(changer),
                false => self.is_cut = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, pid: u32, name: &[u8]) -> Vec<u8> {
        let mut body = vec![0; NFGENMSG];
        let mut attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            body.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        attribute(1, &7_u32.to_be_bytes());
        attribute(NFTA_GEN_PROC_PID, &pid.to_be_bytes());
        attribute(NFTA_GEN_PROC_NAME, name);
        let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(body);
        message
    }

    #[test]
    fn who_changed_rules_is_heard() {
        let mut news = RuleNews::default();
        let rule = message(10 << 8 | 6, 1, b"not a change\0");
        news.take(&[rule, message(NEWGEN, 42, b"nft\0"), message(NEWGEN, 42, b"nft\0")].concat());
        let nft = Changer { pid: 42, name: "nft".to_owned() };
        assert_eq!(news, RuleNews { changers: vec![nft], is_cut: false });
        for pid in 0..100 {
            news.take(&message(NEWGEN, pid, b"x"));
        }
        assert!(news.is_cut && news.changers.len() == CHANGERS);
    }

    #[test]
    fn what_is_no_message_is_left_out() {
        let whole = message(NEWGEN, 42, b"nft\0");
        for length in 0..whole.len() {
            let mut news = RuleNews::default();
            news.take(&whole[..length]);
            assert!(news.changers.is_empty(), "{length}: {news:?}");
        }
        RuleNews::default().take(&[0; 64]);
        RuleNews::default().take(&[0xff; 64]);
    }
}

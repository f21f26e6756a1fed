//! What was found out about this machine for the doctor, uninterpreted: plain values, and where one
//! could not be had, why.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

pub use super::rules::{Act, Base, Chain, Condition, Rule};
use super::workload::Workload;
use super::{SomethingElse, is_default, known, or_something_else, with_offset};

/// Found, or why it is unknown.
pub type Known<T> = Result<T, String>;

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framework {
    Nft,
    /// iptables-legacy, ip6tables-legacy.
    Legacy,
}

/// A table of rules in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTable {
    pub framework: Framework,
    /// As nft names them: ip, ip6, inet, arp, bridge, netdev.
    pub family: Cow<'static, str>,
    pub name: String,
    /// nft: chains of type nat. One is enough to translate and to track, with no rule in it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nat_chains: Vec<String>,
    /// All of its rules; the policies of legacy chains, and their last, empty entries, are none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: u64,
    /// Those that need connection tracking, or keep packets from it: the first few.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uses: Vec<RuleUse>,
    /// And so many more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub more: u64,
    /// All of its chains, with their rules.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chains: Vec<Chain>,
    /// There are more rules than are kept in `chains`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_cut: bool,
    /// Sets and maps in which rules look the state up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state_sets: Vec<StateSet>,
    /// Its rules are numbered by their places, from 1, also those of nft: what printed them names no handle.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by_place: bool,
}

/// A set or a map of states that a rule of nftables looks into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSet {
    pub name: String,
    pub chain: String,
    pub rule: u64,
    /// The verdict is in the map; otherwise it is that of the rule.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_map: bool,
    /// The rule is for what is not in the set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_inverted: bool,
}

/// Of one table, so many rules are kept.
const MOST_USES: usize = 64;
/// And so many with what they ask for: kube-proxy may have tens of thousands.
const MOST_RULES: u64 = 200_000;

impl RuleTable {
    pub fn new(framework: Framework, family: impl Into<Cow<'static, str>>, name: String) -> Self {
        let family = family.into();
        let (nat_chains, uses, chains) = (Vec::new(), Vec::new(), Vec::new());
        let (rules, more, is_cut, state_sets, by_place) = (0, 0, false, Vec::new(), false);
        Self {
            framework,
            family,
            name,
            nat_chains,
            rules,
            uses,
            more,
            chains,
            is_cut,
            state_sets,
            by_place,
        }
    }

    /// The chain of this name; it is made where there is none yet.
    pub fn chain(&mut self, name: &str) -> &mut Chain {
        // Rules come chain by chain.
        let is_last = self.chains.last().is_some_and(|last| last.name == name);
        let at = match is_last {
            true => Some(self.chains.len() - 1),
            false => self.chains.iter().position(|chain| chain.name == name),
        };
        let at = at.unwrap_or_else(|| {
            self.chains.push(Chain { name: name.to_owned(), base: None, rules: Vec::new() });
            self.chains.len() - 1
        });
        &mut self.chains[at]
    }

    /// Takes in what a rule asks for and does.
    pub fn keep(&mut self, chain: &str, rule: Rule) {
        if self.rules > MOST_RULES {
            self.is_cut = true;
            return;
        }
        self.chain(chain).rules.push(rule);
    }

    /// The rule that has to do with tracking, in full, and where in its chain it stands.
    pub fn find(&self, rule: &RuleUse) -> Option<(usize, &Rule)> {
        let chain = self.chains.iter().find(|chain| chain.name == rule.chain)?;
        chain.rules.iter().enumerate().find(|(_, other)| other.number == rule.number)
    }

    /// Takes in one rule, and what of it has to do with tracking.
    pub fn add(&mut self, found: Option<RuleUse>) {
        self.rules += 1;
        match found {
            Some(found) if self.uses.len() < MOST_USES => self.uses.push(found),
            Some(_) => self.more += 1,
            None => {}
        }
    }
}

/// How a rule of nftables is called that decides by the state in several ways.
pub const VMAP: &str = "ct state vmap";

/// And how those that give a connection a timeout policy are, of nftables and of iptables.
pub const POLICY: &str = "ct timeout";
pub const POLICY_OF_IPTABLES: &str = "-j CT --timeout";

/// A rule that has to do with connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleUse {
    pub chain: String,
    /// nft's handle; with iptables the number of the rule in its chain, from 1.
    pub number: u64,
    /// What in it has to do with tracking, in the words of nft or iptables: `ct`, `masquerade`,
    /// `-m conntrack`, `-j MASQUERADE`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: Vec<String>,
    /// It keeps packets from being tracked: `notrack`, `-j CT --notrack`. Such a rule does not need
    /// tracking.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notrack: bool,
    /// What it does with packets that conntrack calls INVALID, where it asks for those alone, or for
    /// those and what is not tracked, or decides by the state.
    #[serde(default, deserialize_with = "or_something_else", skip_serializing_if = "is_default")]
    pub on_invalid: Option<Act>,
    /// Packets that matched, where the rule counts them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub packets: Option<u64>,
}

/// A function that is called for packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub family: Cow<'static, str>,
    /// prerouting, input, forward, output, postrouting.
    pub hook: Cow<'static, str>,
    pub priority: i32,
    pub function: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub module: Option<String>,
}

impl Hook {
    /// One of those by which connections are tracked.
    /// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nf_conntrack_proto.c>
    pub fn tracks(&self) -> bool {
        self.function.contains("conntrack_in") || self.function.contains("conntrack_local")
    }
}

/// As what connection tracking is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Absent,
    BuiltIn,
    Module,
    /// One of the two: what would tell is hidden.
    #[serde(other)]
    Loaded,
}

/// With what the number of buckets can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketsBy {
    /// `net.netfilter.nf_conntrack_buckets`
    Sysctl,
    /// `/sys/module/nf_conntrack/parameters/hashsize`: the sysctl of older kernels is read-only.
    Hashsize,
}

/// A line of `/proc/modules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModule {
    pub name: String,
    /// All that holds it: modules, rules, open files.
    pub references: u32,
    /// The modules among them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub users: Vec<String>,
}

/// What the kernel keeps entries in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slab {
    pub objects: u64,
    /// Bytes of one.
    pub size: u64,
}

/// What the kernel's log still holds about conntrack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    /// The last few lines, with the seconds since boot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lines: Vec<(u64, String)>,
    /// Lines that say `table full`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub table_full: u64,
    /// The same by the namespace that they name; 0: they name none, as on older kernels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub full_in: BTreeMap<u32, FullLines>,
    /// Lines that say that the table of expectations is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expectations_full: FullLines,
    /// Messages of the network that were suppressed for being too many; conntrack's among them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suppressed: u64,
    /// Lines that say that memory could not be had.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_memory: u64,
    /// The oldest line there is: what came before it is forgotten. Seconds since boot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub since: Option<u64>,
    /// When it was read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read: Option<Moment>,
    /// No line of it says when it was written: the seconds mean nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_untimed: bool,
}

/// Lines of the kernel's log that say that a table was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullLines {
    pub lines: u64,
    /// Seconds since boot.
    pub last: u64,
}

/// One moment by both clocks: the log knows only the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds.
    pub since_boot: u64,
    #[serde(with = "with_offset")]
    pub time: jiff::Zoned,
}

/// A line of a sysctl file that is about conntrack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub file: String,
    /// As below `/proc/sys/net/netfilter`: `nf_conntrack_max`.
    pub name: String,
    pub value: String,
}

/// A module that a file of modprobe.d keeps from being loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barred {
    pub file: String,
    pub module: String,
}

/// Counters since the namespace was made, over all CPUs: the words of `conntrack -S`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(default, skip_serializing_if = "is_default")]
    pub invalid: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub insert_failed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub drop: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub early_drop: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub clash_resolve: u64,
    /// `None` before Linux 5.15.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chaintoolong: Option<u64>,
}

/// What can be typed on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// Programs that are on the PATH.
    #[serde(default, skip_serializing_if = "is_default")]
    pub there: Vec<String>,
    /// What `iptables` is: `None` where its name does not say.
    #[serde(default, deserialize_with = "or_something_else", skip_serializing_if = "is_default")]
    pub iptables: Option<Framework>,
    /// systemd runs this machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub systemd: bool,
    /// udev applies rules on this machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub udev: bool,
    /// What applies files of sysctl.d; `None`: nothing does.
    #[serde(default, deserialize_with = "or_something_else", skip_serializing_if = "is_default")]
    pub apply: Option<Apply>,
    /// Where root keeps files, and where those are that go with the next boot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub home: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub run: String,
    /// The time, as part of a name that no other file has.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stamp: String,
}

/// How settings are applied without touching those of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// A command that applies all that is written down for conntrack, and nothing else.
    Prefix(String),
    /// The path of a `sysctl` that applies one file. Asked for all files (`--system`), it would set
    /// again what others have changed since.
    File(String),
}

impl SomethingElse for Option<Framework> {
    fn something_else() -> Self {
        None
    }
}

/// Nothing that this version could say to be typed.
impl SomethingElse for Option<Apply> {
    fn something_else() -> Self {
        None
    }
}

impl Tools {
    pub fn has(&self, tool: &str) -> bool {
        self.there.iter().any(|there| there == tool)
    }
}

/// What tells who manages this host's firewall and its settings, besides the rules themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Files and folders, of those that are asked for, that are there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Vec<String>,
    /// Names of running programs, of those that are asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub processes: Vec<String>,
    /// Services that systemd starts at boot, of those that are asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: Vec<String>,
    /// What /etc/nftables.conf includes, outside of any table.
    #[serde(default, skip_serializing_if = "is_default")]
    pub includes: Vec<String>,
}

/// Whether the limit may be set from where this runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writable {
    Yes,
    /// The kernel shows it as read-only: this is not the first network namespace.
    OtherNamespace,
    /// /proc/sys is mounted read-only, as in most containers.
    ReadOnly,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    pub id: ctwatch_abi::NetnsId,
    pub inode: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload: Workload,
    /// The one from which all this was looked at: what is typed there needs no way in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_own: bool,
    /// A name that `ip netns exec` takes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by_ip: bool,
    /// What else leads into it: a process that lives in it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: Option<u32>,
    /// Or where it is mounted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mount: Option<String>,
    /// Addresses of its own interfaces.
    #[serde(default, skip_serializing_if = "is_default")]
    pub addresses: Vec<IpAddr>,
    /// What a cloud's network drops, by interface; none elsewhere.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allowances: Vec<Allowance>,
    #[serde(with = "known")]
    pub entries: Known<u32>,
    #[serde(with = "known")]
    pub totals: Known<Totals>,
    #[serde(with = "known")]
    pub expectations: Known<u32>,
    /// Seconds, by the name of the sysctl.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: BTreeMap<String, u32>,
    #[serde(with = "known")]
    pub hooks: Known<Vec<Hook>>,
    /// Bridges whose packets netfilter sees as if they were routed; `None`: it sees none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bridges: Option<u32>,
    #[serde(with = "known")]
    pub nft: Known<Vec<RuleTable>>,
    #[serde(with = "known")]
    pub legacy: Known<Vec<RuleTable>>,
}

impl Namespace {
    pub fn is_host(&self) -> bool {
        // Somebody may have called another one by that name.
        !self.by_ip && self.name.as_deref() == Some("host")
    }

    /// As it is spoken of.
    pub fn called(&self) -> String {
        let shown = self.workload.shown(self.name.as_deref());
        shown.map_or_else(|| format!("netns {}", self.inode), Cow::into_owned)
    }

    /// A rule that gives connections a time of their own, whatever the sysctls say.
    pub fn timeout_policy(&self) -> Option<(&RuleTable, &RuleUse)> {
        let gives =
            |rule: &&RuleUse| rule.by.iter().any(|by| by == POLICY || by == POLICY_OF_IPTABLES);
        self.rule_tables().find_map(|table| Some((table, table.uses.iter().find(gives)?)))
    }

    /// All tables of rules that could be read.
    pub fn rule_tables(&self) -> impl Iterator<Item = &RuleTable> {
        self.nft.iter().chain(&self.legacy).flatten()
    }
}

/// A namespace of an unprivileged user. Only counted: to look into all that he makes would be a cost
/// that he causes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stranger {
    pub uid: u32,
    pub inode: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    #[serde(with = "known")]
    pub entries: Known<u32>,
    #[serde(with = "known")]
    pub totals: Known<Totals>,
}

impl Stranger {
    /// As it is spoken of.
    pub fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("netns {}", self.inode))
    }
}

/// What a cloud's network counts of an interface: it tracks connections too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    pub interface: String,
    /// Packets that it dropped, since the interface was made, because as many connections were tracked
    /// as this machine is allowed.
    pub exceeded: u64,
    /// Connections that it would track more. `None`: the driver is older.
    #[serde(default, skip_serializing_if = "is_default")]
    pub available: Option<u64>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub release: String,
    pub form: Form,
    #[serde(with = "known")]
    pub modules: Known<Vec<LoadedModule>>,
    /// Modules that track connections and that this kernel has: on disk, or loaded now.
    #[serde(with = "known")]
    pub on_disk: Known<Vec<String>>,
    #[serde(with = "known")]
    pub limit: Known<u32>,
    #[serde(with = "known")]
    pub buckets: Known<u32>,
    #[serde(with = "known")]
    pub buckets_by: Known<BucketsBy>,
    #[serde(with = "known")]
    pub expect_max: Known<u32>,
    /// Bytes.
    #[serde(with = "known")]
    pub memory: Known<u64>,
    #[serde(with = "known")]
    pub slab: Known<Slab>,
    #[serde(with = "known")]
    pub log: Known<KernelLog>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: Vec<Setting>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub barred: Vec<Barred>,
    /// Those that decide what is found: the host's own, or those that were asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespaces: Vec<Namespace>,
    /// And those of unprivileged users.
    #[serde(default, skip_serializing_if = "is_default")]
    pub others: Vec<Stranger>,
    /// What those are called that count as the host's because their owner is unknown, and why it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unowned: Vec<(String, String)>,
    pub tools: Tools,
    pub evidence: Evidence,
    pub limit_is: Writable,
    /// Why others were not looked into.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unvisited: Vec<String>,
}

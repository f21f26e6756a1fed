//! Taking rules away: only those that nobody manages, kept before, whole or not at all, and back again
//! by themselves unless that is stopped.

use std::collections::BTreeMap;

use super::{
    case::{Case, number},
    fixes, owners,
    report::{Check, Fix},
};
use crate::record::facts::{Framework, Namespace, RuleTable, RuleUse, Tools};

/// A rule, and the table it is in.
pub(super) type Place<'a> = (&'a RuleTable, &'a RuleUse);

/// The commands for all of these rules of one namespace; or why there are none.
pub(super) fn remove(
    case: &Case<'_>,
    namespace: &Namespace,
    rules: &[Place<'_>],
    title: &str,
) -> Result<Fix, String> {
    let owned = owners::of_namespace(case.facts, namespace);
    if !owned.is_empty() {
        return Err(format!(
            "rules here are those of {}: they are why connections are tracked, and no fault; what is \
             not wanted has to be changed there",
            owners::in_words(&owned)
        ));
    }
    let tools = &case.facts.tools;
    let mut fix = fixes::fix(title);
    let file = format!("{}/ctwatch-{}-{}", tools.home, tools.stamp, namespace.inode);
    let (by_nft, by_iptables): (Vec<Place<'_>>, Vec<Place<'_>>) =
        rules.iter().partition(|(table, _)| !is_of_iptables(table));
    let shell = Shell { tools, namespace, file: &file };
    if !by_nft.is_empty() {
        shell.nft(&by_nft, &mut fix)?;
    }
    let mut tables: BTreeMap<(bool, &str, &str), Vec<Place<'_>>> = BTreeMap::new();
    for (table, rule) in by_iptables {
        let is_legacy = table.framework == Framework::Legacy;
        tables.entry((is_legacy, &*table.family, &table.name)).or_default().push((table, rule));
    }
    for rules in tables.values() {
        shell.iptables(rules, &mut fix)?;
    }
    let name = format!("rules-{}-{}", namespace.inode, rules.first().map_or(0, |(_, r)| r.number));
    fixes::arm(tools, &name, &mut fix);
    fix.lasts.push(
        "until whoever loaded the rules loads them again: nothing shows who that is".to_owned(),
    );
    Ok(fix)
}

/// One of those that the tools of iptables made, and only they can read as a whole.
fn is_of_iptables(table: &RuleTable) -> bool {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    table.framework == Framework::Legacy
        || matches!(&*table.family, "ip" | "ip6")
            && TABLES.contains(&table.name.as_str())
            && table.chains.iter().any(|chain| CHAINS.contains(&chain.name.as_str()))
}

/// nft reads names as a language of its own, in which others' tools need not have named theirs.
pub(super) fn nft_name(name: &str) -> Option<&str> {
    let mut characters = name.chars();
    let begins = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    (begins && characters.all(goes_on)).then_some(name)
}

struct Shell<'a> {
    tools: &'a Tools,
    namespace: &'a Namespace,
    /// What the names of files begin with: each time another.
    file: &'a str,
}

impl Shell<'_> {
    fn within(&self, command: &str) -> Result<String, String> {
        fixes::entered(self.tools, self.namespace, command)
    }

    fn needs(&self, tool: &str) -> Result<(), String> {
        match self.tools.has(tool) {
            true => Ok(()),
            false => Err(format!("{tool} is not installed, and they would be kept with it before")),
        }
    }

    /// Single rules by their handles, in one transaction; and back to where each stood.
    fn nft(&self, rules: &[Place<'_>], fix: &mut Fix) -> Result<(), String> {
        // By the numbers that there are, others would be taken away.
        if rules.iter().any(|(table, _)| table.by_place) {
            return Err(
                "their handles are not in what was read (nft -a list ruleset tells)".to_owned()
            );
        }
        self.needs("nft")?;
        self.needs("sed")?;
        let (kept, undo) = (format!("{}.nft", self.file), format!("{}-undo.nft", self.file));
        let mut placed = Vec::new();
        for (table, rule) in rules {
            let unread = || format!("nft does not read the name of its chain: {}", rule.chain);
            let (name, chain) =
                nft_name(&table.name).zip(nft_name(&rule.chain)).ok_or_else(unread)?;
            let (at, _) = table.find(rule).ok_or("where it stands is not known")?;
            placed.push((format!("{} {name} {chain}", table.family), at, rule.number));
        }
        // Back from the front: then each finds those before it in their places.
        placed.sort();
        let list = self.within("nft -a list ruleset")?;
        fix.save.push(format!("(set -C; {list} > {kept}; : > {undo})"));
        let mut deletions = String::new();
        for (chain, at, handle) in &placed {
            let back = match at {
                0 => format!("insert rule {chain}"),
                at => format!("add rule {chain} index {}", at - 1),
            };
            let list = self.within(&format!("nft -a list chain {chain}"))?;
            fix.save.push(format!(
                "{list} | sed -n 's|^[[:space:]]*\\(.*\\) # handle {handle}$|{back} \\1|p' >> {undo}"
            ));
            deletions.push_str(&format!("delete rule {chain} handle {handle}\n"));
        }
        let check = self.within(&format!("nft -c -f {undo}"))?;
        let is_kept = format!("test \"$(wc -l < {undo})\" -eq {} && {check}", placed.len());
        fix.save.push(format!(
            "{is_kept} || {{ echo 'not all of it was kept: stop here' >&2; false; }}"
        ));
        fix.save.push(self.within(&format!("nft -c -f - <<'END'\n{deletions}END"))?);
        // Also where somebody has not seen what was said before.
        let now = self.within(&format!("nft -f - <<'END'\n{deletions}END"))?;
        fix.now.push(format!("{is_kept} && {now}"));
        fix.undo.push(self.within(&format!("nft -f {undo}"))?);
        if let Some((chain, _, handle)) = placed.first() {
            let list = self.within(&format!("nft -a list chain {chain}"))?;
            let command = format!("{list} | grep -c '# handle {handle}$' || true");
            fix.check = Some(Check { command, prints: "0".to_owned() });
        }
        Ok(())
    }

    /// Each by what its tool saved of it, in one go; and back to the place it had. Nothing else in the
    /// table is touched, whatever was added meanwhile.
    fn iptables(&self, rules: &[Place<'_>], fix: &mut Fix) -> Result<(), String> {
        let Some((table, _)) = rules.first() else { return Ok(()) };
        let tool = self.tool(table)?;
        let (save, restore) = (format!("{tool}-save"), format!("{tool}-restore"));
        for tool in [&save, &restore, "awk"] {
            self.needs(tool)?;
        }
        let name = &table.name;
        let kept = format!("{}-{name}.{tool}", self.file);
        let mut wanted = String::new();
        for (_, rule) in rules {
            let chain = nft_name(&rule.chain).ok_or("the name of its chain is odd")?;
            // nft knows it by its handle, and iptables by its place.
            let (at, _) = table.find(rule).ok_or("where it stands is not known")?;
            let word = rule.by.first().and_then(|by| by.split(' ').nth(1)).unwrap_or_default();
            // The kernel has one match for both.
            let word = if matches!(word, "conntrack" | "state") { "conntrack|state" } else { word };
            wanted.push_str(&format!("d[\"{chain} {}\"]=\"{word}\"; ", at + 1));
        }
        // What has changed since is left alone. `c` are its counters, `r` is what follows the chain.
        let awk = |print: &str| {
            format!(
                "awk 'BEGIN {{ {wanted}print \"*{name}\" }} {{ l = $0; sub(/^\\[[0-9:]*\\] /, \"\", \
                 l) }} l ~ /^-A / {{ split(l, w, \" \"); k = w[2] \" \" ++n[w[2]]; if (k in d) {{ if (l \
                 !~ d[k]) {{ print \"rules have changed: stop here\" > \"/dev/stderr\"; exit 1 }} c = substr($0, 1, length($0) - length(l)); r = substr(l, \
                 length(w[2]) + 5); print {print}; m++ }} }} END {{ print \"COMMIT\"; exit m != {} }}'",
                rules.len()
            )
        };
        let saved = self.within(&format!("{save} -c -t {name}"))?;
        fix.save.push(format!("(set -C; {saved} > {kept})"));
        for (print, end, counts) in [
            ("\"-D \" w[2] \" \" r", "remove", ""),
            ("c \"-I \" w[2] \" \" n[w[2]] \" \" r", "undo", "-c "),
        ] {
            fix.save.push(format!("(set -C; {} {kept} > {kept}.{end})", awk(print)));
            let test = self.within(&format!("{restore} --test -n {counts}-T {name}"))?;
            fix.save.push(format!("{test} < {kept}.{end}"));
        }
        let load = |counts: &str| self.within(&format!("{restore} -n {counts}-T {name}"));
        fix.now.push(format!("{} < {kept}.remove", load("")?));
        fix.undo.push(format!("{} < {kept}.undo", load("-c ")?));
        if let Some((_, rule)) = rules.first() {
            let all = table.chains.iter().find(|chain| chain.name == rule.chain);
            let gone = rules.iter().filter(|(_, other)| other.chain == rule.chain).count();
            let left = all.map_or(0, |chain| chain.rules.len()).saturating_sub(gone);
            let list = self.within(&format!("{tool} -t {name} -S {}", rule.chain))?;
            let command = format!("{list} | grep -c '^-A' || true");
            let prints = number(u64::try_from(left).unwrap_or(u64::MAX));
            fix.check = Some(Check { command, prints: prints.replace(',', "") });
        }
        Ok(())
    }

    /// By a name that is there, and is certainly of this backend.
    fn tool(&self, table: &RuleTable) -> Result<String, String> {
        let plain = if table.family == "ip6" { "ip6tables" } else { "iptables" };
        let (exact, backend) = match table.framework {
            Framework::Legacy => (format!("{plain}-legacy"), Framework::Legacy),
            Framework::Nft => (format!("{plain}-nft"), Framework::Nft),
        };
        if self.tools.has(&format!("{exact}-save")) {
            return Ok(exact);
        }
        if self.tools.has(plain) && self.tools.iptables == Some(backend) {
            return Ok(plain.to_owned());
        }
        Err(format!("{exact}-save is not installed, and with it the table would be kept before"))
    }
}

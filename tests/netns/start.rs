//! What a start finds out about the kernel, by the quick way and by the slow one.

use anyhow::{Context, Result, ensure};
use ctwatch::{
    host::kernel::{btf::Btf, symbols::Symbols},
    probe::symbols,
};

use crate::{On, Test, mechanism, test};

pub(crate) const TESTS: &[Test] = &[
    test(On::Once, "the_kernel_names_the_same_symbols_as_kallsyms", same_symbols),
    test(On::Once, "types_are_the_same_by_map_and_by_copy", same_types),
];

const FUNCTIONS: [&str; 8] = [
    "nf_hook_slow",
    "early_drop",
    "__nf_conntrack_hash_insert",
    "nf_conntrack_free",
    "nf_ct_resolve_clash",
    "__nf_conntrack_confirm",
    "nf_conntrack_hash_resize",
    "no_function_of_any_kernel",
];

fn same_symbols() -> Result<()> {
    let asked = match symbols::ask(&FUNCTIONS) {
        Ok(asked) => asked,
        // Linux 5.16 was the first to answer; before, the file is read after all.
        Err(_) if mechanism::release()? < (5, 16) => symbols::find(&FUNCTIONS)?,
        Err(error) => return Err(error),
    };
    let read = Symbols::read(&FUNCTIONS)?;
    let mut found = 0;
    for name in FUNCTIONS {
        ensure!(asked.in_module(name) == read.in_module(name), "{name} is in different places");
        let (Ok(by_asking), Ok(by_file)) = (asked.code(name), read.code(name)) else {
            ensure!(asked.code(name).is_err() == read.code(name).is_err(), "{name} is there once");
            continue;
        };
        found += 1;
        // Behind a function there may be a symbol that is none, which the file is not searched for.
        let same = by_asking.start == by_file.start && by_asking.len <= by_file.len;
        ensure!(
            same && by_asking.len > 0,
            "{name} is {by_asking:x?}, and {by_file:x?} by kallsyms"
        );
    }
    ensure!(found >= 5, "only {found} of them are there");
    Ok(())
}

fn same_types() -> Result<()> {
    const WANTED: &[&str] = &["task_struct", "nf_conn", "sk_buff"];
    let own = Btf::vmlinux(WANTED)?;
    let copy = std::fs::read("/sys/kernel/btf/vmlinux").context("no BTF")?;
    let copy = Btf::parse(copy, None, WANTED)?;
    for (of, path) in
        [("task_struct", "tgid"), ("nf_conn", "proto.tcp.state"), ("sk_buff", "network_header")]
    {
        let (own, copy) = (own.offset(of, path)?, copy.offset(of, path)?);
        ensure!(own == copy && own > 0, "{path} of {of} is at {own}, and {copy} by a copy");
    }
    Ok(())
}

//! A census by what lives in the network namespaces: by pod, and by namespace of Kubernetes.

use std::{cmp::Reverse, collections::HashMap};

use super::census::{Holds, Taken};
use crate::record::workload::Workload;

/// By what namespaces are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    Pod,
    Namespace,
}

impl Grouping {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Namespace => "namespace",
        }
    }

    fn key(self, workload: &Workload) -> Option<Key> {
        let (namespace, pod) = (workload.namespace.clone()?, workload.pod.clone()?);
        Some(Key { namespace, pod: (self == Self::Pod).then_some(pod) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Of Kubernetes.
    pub namespace: String,
    /// `None` where all pods of the namespace are meant.
    pub pod: Option<String>,
}

/// The entries of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `None`: no pod is known to live there.
    pub key: Option<Key>,
    /// Network namespaces that hold something.
    pub tables: u64,
    pub holds: Holds,
}

/// All entries that were counted, the most first; those of no known pod come last.
pub fn groups(taken: &Taken, by: Grouping) -> Vec<Group> {
    let workloads: HashMap<_, _> =
        taken.kernel.iter().map(|count| (count.netns, &count.workload)).collect();
    let mut groups: HashMap<Option<Key>, Group> = HashMap::new();
    for table in &taken.counted.tables {
        let key = workloads.get(&table.netns).and_then(|workload| by.key(workload));
        let none = || Group { key: key.clone(), tables: 0, holds: Holds::default() };
        let group = groups.entry(key.clone()).or_insert_with(none);
        group.tables += 1;
        group.holds = group.holds.plus(table.holds);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    let order =
        |group: &Group| (group.key.is_none(), Reverse(group.holds.all()), group.key.clone());
    groups.sort_by_cached_key(order);
    groups
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::census::{Census, KernelCount, SEED},
        record::{
            entry::{Held, Left, Status},
            sample::Owner,
        },
    };

    /// A namespace of Kubernetes, and the name.
    type Pod = (&'static str, &'static str);

    fn taken(of: &[(u64, Option<Pod>, u32)]) -> Taken {
        let mut census = Census::new(&[], SEED);
        for (netns, _, entries) in of {
            let key = ctwatch_abi::top::Key {
                netns: *netns,
                protocol: 17,
                family: 2,
                ..Default::default()
            };
            let (translated, status, left) = (key, Status(0), Left::Seconds(30));
            let held = Held { key, translated, status, state: 0, zone: 0, left };
            (0..*entries).for_each(|_| census.enter(&held));
        }
        let kernel = of.iter().map(|(netns, pod, entries)| KernelCount {
            is_torn: false,
            netns: *netns,
            owner: Owner::Host,
            is_judged: true,
            inode: *netns as u32,
            name: None,
            workload: Workload {
                pod: pod.map(|(_, pod)| pod.to_owned()),
                namespace: pod.map(|(namespace, _)| namespace.to_owned()),
                container: None,
            },
            before: Some(*entries),
            after: Some(*entries),
            unlisted: None,
        });
        let (took, cpu) = (Duration::ZERO, Duration::ZERO);
        let (kernel, counted) = (kernel.collect(), census.finish(1));
        Taken { by: "walk".into(), took, cpu, strayed: 0, kernel, counted, notes: Vec::new() }
    }

    fn named(groups: &[Group]) -> Vec<(String, u64, u64)> {
        let name = |key: &Key| match &key.pod {
            Some(pod) => format!("{}/{pod}", key.namespace),
            None => key.namespace.clone(),
        };
        let row = |group: &Group| {
            (group.key.as_ref().map(name).unwrap_or_default(), group.tables, group.holds.all())
        };
        groups.iter().map(row).collect()
    }

    #[test]
    fn groups_add_up_to_all_entries() {
        let mut taken = taken(&[
            (1, Some(("web", "a")), 2),
            (2, Some(("web", "b")), 3),
            // The same name in another namespace is another pod.
            (3, Some(("db", "a")), 4),
            (4, None, 50),
            (5, None, 1),
        ]);
        let row = |name: &str, tables, entries| (name.to_owned(), tables, entries);
        assert_eq!(
            named(&groups(&taken, Grouping::Pod)),
            [row("db/a", 1, 4), row("web/b", 1, 3), row("web/a", 1, 2), row("", 2, 51)]
        );
        assert_eq!(
            named(&groups(&taken, Grouping::Namespace)),
            [row("web", 2, 5), row("db", 1, 4), row("", 2, 51)]
        );
        // A network namespace that nothing leads into.
        taken.kernel.remove(0);
        let all: u64 = groups(&taken, Grouping::Pod).iter().map(|group| group.holds.all()).sum();
        assert_eq!(all, taken.counted.holds().all());
        assert_eq!(named(&groups(&taken, Grouping::Namespace))[2], row("", 3, 53));
    }
}

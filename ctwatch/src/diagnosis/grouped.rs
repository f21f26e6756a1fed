//! Findings of one kind in many namespaces, as one.

use super::{case::number, report::Finding};

/// Two are still read one after the other.
const MANY: usize = 3;
/// Of a group so many are shown in full, and so many by their titles.
const WHOLE: usize = 2;
const TITLES: usize = 10;

/// Takes findings in order; those of one kind and severity stand where the first of them stood.
pub(super) fn grouped(findings: Vec<Finding>) -> Vec<Finding> {
    let mut groups: Vec<Vec<Finding>> = Vec::new();
    for finding in findings {
        let is_alike = |group: &&mut Vec<Finding>| {
            group.first().is_some_and(|f| (f.id, f.severity) == (finding.id, finding.severity))
        };
        match groups.iter_mut().find(is_alike) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let one = |group: Vec<Finding>| match group.len() {
        0..MANY => group,
        _ => joined(group).into_iter().collect(),
    };
    groups.into_iter().flat_map(one).collect()
}

fn joined(group: Vec<Finding>) -> Option<Finding> {
    let mut group = group.into_iter();
    let mut whole = group.next()?;
    let others = group.len();
    whole.title += &format!("; and {} more like it", number(others as u64));
    let mut left_out = 0_u64;
    for (at, other) in group.enumerate() {
        whole.about.extend(other.about);
        match at {
            0..TITLES => whole.evidence.push(other.title),
            _ => left_out += 1,
        }
        if at + 1 < WHOLE {
            whole.evidence.extend(other.evidence);
        }
        for fix in other.fixes {
            let is_same =
                whole.fixes.iter().any(|one| (&one.title, &one.now) == (&fix.title, &fix.now));
            if !is_same && at + 1 < WHOLE {
                whole.fixes.push(fix);
            }
        }
    }
    if left_out > 0 {
        whole.evidence.push(format!("and {} more", number(left_out)));
    }
    whole.evidence.push("each by itself, with what to do: ctwatch doctor --netns NAME".to_owned());
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnosis::{
            Case,
            cases::facts,
            findings, findings_about,
            report::{Fix, Severity},
        },
        record::facts::Namespace,
    };

    fn finding(id: &'static str, of: usize) -> Finding {
        let fix = Fix { title: "cure".to_owned(), now: vec!["all".to_owned()], ..Fix::default() };
        let own = Fix { now: vec![format!("only {of}")], ..fix.clone() };
        Finding {
            id,
            severity: Severity::Info,
            title: format!("{id} of {of}"),
            evidence: vec![format!("seen in {of}")],
            fixes: vec![fix, own],
            about: Vec::new(),
        }
    }

    #[test]
    fn two_of_a_kind_stay_apart() {
        let found = grouped(vec![finding("a", 1), finding("b", 1), finding("a", 2)]);
        let titles: Vec<&str> = found.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles, ["a of 1", "a of 2", "b of 1"]);
    }

    #[test]
    fn many_of_a_kind_are_one_finding() {
        let found = grouped((1..=40).map(|of| finding("a", of)).collect());
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(one.title, "a of 1; and 39 more like it");
        let evidence = one.evidence.join("; ");
        assert!(evidence.contains("a of 11") && !evidence.contains("a of 12"), "{evidence}");
        assert!(evidence.contains("and 29 more") && evidence.contains("seen in 2"), "{evidence}");
        let now: Vec<&str> = one.fixes.iter().map(|fix| fix.now[0].as_str()).collect();
        assert_eq!(now, ["all", "only 1", "only 2"]);
    }

    #[test]
    fn one_namespace_is_told_apart_from_others() {
        let mut facts = facts(1000);
        facts.namespaces[0].bridges = Some(1);
        for id in 2..=6 {
            let one = facts.namespaces[0].clone();
            facts.namespaces.push(Namespace { id, inode: 1, ..one });
        }
        facts.namespaces[5].entries = Ok(1);
        facts.limit = Ok(1000);
        facts.buckets = Ok(2);
        let case =
            Case { facts: &facts, census: Err("none"), live: None, settings: Default::default() };
        let full = |found: &[Finding]| {
            let full = found.iter().find(|finding| finding.id == "table_full");
            full.map(|finding| (finding.about.clone(), finding.title.contains("more like it")))
        };
        // Together the five tables are one finding; asked about one of them, the finding names that one alone.
        let (all, one) = (findings(&case), findings_about(&case, 3));
        assert_eq!(full(&all), Some((vec![1, 2, 3, 4, 5], true)));
        assert_eq!(full(&one), Some((vec![3], false)));
        assert_eq!(full(&findings_about(&case, 6)), None);
        // What is about the host as a whole stays.
        for found in [&all, &one, &findings_about(&case, 6)] {
            let host = found.iter().find(|finding| finding.id == "few_buckets").unwrap();
            assert!(host.about.is_empty());
        }
    }
}

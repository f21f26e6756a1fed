//! Which namespaces are meant: by patterns of names, and by whose they are.

use std::{fmt, str::FromStr};

use crate::record::sample::Owner;

/// A name in which `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// `None` where it is a plain name.
    pub fn of(text: &str) -> Option<Self> {
        text.contains(['*', '?']).then(|| Self::exactly(text))
    }

    /// Also without any of these.
    pub fn exactly(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// In as many steps as the two are long, multiplied, at most.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut of) = (0, 0);
        // Where the last star was, and how much of the name it has taken.
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(of) {
                Some('*') => {
                    star = Some((of, at));
                    of += 1;
                }
                Some(c) if *c == '?' || *c == name[at] => (at, of) = (at + 1, of + 1),
                _ => match &mut star {
                    Some((begin, taken)) => {
                        *taken += 1;
                        (at, of) = (*taken, *begin + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[of..].iter().all(|c| *c == '*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|c| write!(f, "{c}"))
    }
}

/// Names that are wanted, and those among them that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    pub only: Vec<Pattern>,
    pub not: Vec<Pattern>,
}

impl Patterns {
    /// Whether one that goes by these names is wanted; `is_named`: whatever it is called, unless one
    /// of its names is not wanted.
    pub fn admit(&self, names: impl Iterator<Item = String>, is_named: bool) -> bool {
        let mut admits = is_named;
        for name in names {
            if self.not.iter().any(|pattern| pattern.matches(&name)) {
                return false;
            }
            admits |= self.name(&name);
        }
        admits
    }

    pub fn name(&self, name: &str) -> bool {
        self.only.iter().any(|pattern| pattern.matches(name))
    }
}

/// Whose namespaces are shown, and whose may raise an alarm.
///
/// One of an owner who is unknown is taken for the host's: an alarm too many does less harm than one
/// that is missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// All are shown; what happens in one of an unprivileged user, who may do there as he likes, is
    /// no alarm.
    #[default]
    HostFirst,
    /// The host's, and no others.
    Host,
    /// Of this user, and no others.
    User(u32),
    /// All alike.
    All,
}

impl Whose {
    pub fn admits(self, owner: &Owner) -> bool {
        match self {
            Self::HostFirst | Self::All => true,
            Self::Host => !owner.is_stranger(),
            Self::User(uid) => *owner == Owner::User(uid),
        }
    }

    pub fn judges(self, owner: &Owner) -> bool {
        self.admits(owner) && (self != Self::HostFirst || !owner.is_stranger())
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostFirst | Self::Host => f.write_str("host"),
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => Ok(Self::Host),
            "all" => Ok(Self::All),
            _ => match text.parse() {
                Ok(0) => Ok(Self::Host),
                Ok(uid) => Ok(Self::User(uid)),
                Err(_) => Err("none of host, all, or the number of a user".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, yes, no) in [
            ("pod-*", &["pod-", "pod-a", "pod-*"][..], &["pod", "a-pod-b", ""][..]),
            ("*", &["", "x"], &[]),
            ("*-*-1", &["a-b-1", "--1", "a-1-1"], &["a-1", "a-b-12"]),
            ("a?c", &["abc", "aßc"], &["ac", "abbc"]),
            ("rt", &["rt"], &["rt1", "r", "RT"]),
            ("**a**", &["a", "xay"], &["b"]),
        ] {
            let of = Pattern::exactly(pattern);
            assert!(yes.iter().all(|name| of.matches(name)), "{pattern}");
            assert!(!no.iter().any(|name| of.matches(name)), "{pattern}");
        }
        assert_eq!(Pattern::of("rt"), None);
    }

    #[test]
    fn a_long_name_does_not_take_for_ever() {
        let pattern = Pattern::exactly(&"*a".repeat(100));
        assert!(!pattern.matches(&("a".repeat(255) + "b")));
    }

    #[test]
    fn strangers_are_shown_and_not_judged() {
        let (user, unknown) = (Owner::User(1000), Owner::Unknown(String::new()));
        let of = |whose: Whose, owner| (whose.admits(owner), whose.judges(owner));
        for (whose, host, of_user, of_unknown) in [
            ("all", (true, true), (true, true), (true, true)),
            ("host", (true, true), (false, false), (true, true)),
            ("1000", (false, false), (true, true), (false, false)),
            ("1001", (false, false), (false, false), (false, false)),
        ] {
            let whose: Whose = whose.parse().unwrap();
            assert_eq!(of(whose, &Owner::Host), host, "{whose:?}");
            assert_eq!(of(whose, &user), of_user, "{whose:?}");
            assert_eq!(of(whose, &unknown), of_unknown, "{whose:?}");
        }
        let whose = Whose::default();
        assert_eq!(of(whose, &Owner::Host), (true, true));
        assert_eq!(of(whose, &user), (true, false));
        assert_eq!(of(whose, &unknown), (true, true));
        assert!("alice".parse::<Whose>().is_err() && "-1".parse::<Whose>().is_err());
    }
}

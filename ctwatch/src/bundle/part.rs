//! The output of one command, or one file, read line by line by the reader of its kind.

use super::{
    entries::EntriesPart,
    gathered::BundleParts,
    iptables::SavedPart,
    iptables_list::ListedPart,
    kind::{Printed, Why},
    log::LogPart,
    nft::NftPart,
    nft_json, place,
    prompt::{self, Typed},
    small::{self, AdapterPart, CountersPart, HooksPart},
};

pub(super) struct Section {
    pub(super) kind: Printed,
    pub(super) namespace: Option<String>,
    /// Only the name of the piece tells the kind.
    pub(super) is_by_name: bool,
    /// The command, or the path.
    of: String,
    body: Body,
    is_empty: bool,
}

enum Body {
    /// Lines that are read one by one, or not at all.
    Plain,
    Entries(EntriesPart),
    Counters(CountersPart),
    Saved(SavedPart),
    Listed(ListedPart),
    Nft(NftPart),
    Log(LogPart),
    Adapter(AdapterPart),
    Hooks(HooksPart),
}

impl Section {
    /// `of`: the path of a file, or a command.
    pub(super) fn of(kind: Printed, namespace: Option<String>, of: &str) -> Self {
        let body = match kind {
            Printed::Entries | Printed::Expectations => Body::Entries(EntriesPart::of(of)),
            Printed::Counters | Printed::CountersOfProc => Body::Counters(CountersPart::default()),
            Printed::RulesSaved => Body::Saved(SavedPart::of(of)),
            Printed::RulesListed => Body::Listed(ListedPart::of(of)),
            Printed::Nft => Body::Nft(NftPart::default()),
            Printed::Log => Body::Log(LogPart::default()),
            Printed::Adapter => Body::Adapter(AdapterPart::of(of)),
            Printed::Hooks => Body::Hooks(HooksPart::default()),
            _ => Body::Plain,
        };
        Self { kind, namespace, is_by_name: false, of: of.to_owned(), body, is_empty: true }
    }

    /// The output of a command, in the namespace that the command names, or the name of the piece.
    pub(super) fn of_command(typed: &Typed<'_>, namespace: Option<&str>, piece: &str) -> Self {
        let (named, _) = place::of_command(typed.command);
        let kind = match Printed::by(typed.command) {
            Printed::Unknown => Printed::Other,
            known => known,
        };
        let of = if typed.command.is_empty() { piece } else { typed.command };
        Self::of(kind, named.or(namespace).map(str::to_owned), of)
    }

    /// Whether this kind is read here.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.kind, Printed::Unknown | Printed::Other)
    }

    /// Takes in a line, or says why it does not belong here.
    pub(super) fn take(
        &mut self,
        line: &[u8],
        piece: &str,
        gathered: &mut BundleParts,
    ) -> Result<(), Why> {
        let namespace = self.namespace.as_deref();
        match &mut self.body {
            Body::Entries(part) if self.kind == Printed::Expectations => part.expectation(line)?,
            Body::Entries(part) => part.take(line, gathered)?,
            Body::Counters(part) => part.take(line)?,
            Body::Saved(part) => part.take(text(line)?, namespace, gathered)?,
            Body::Listed(part) => part.take(text(line)?)?,
            Body::Nft(part) => part.take(text(line)?)?,
            Body::Log(part) => part.take(line, gathered)?,
            Body::Adapter(part) => part.take(text(line)?)?,
            Body::Hooks(part) => part.take(text(line)?)?,
            Body::Plain => match self.kind {
                Printed::NftJson => {
                    let tables = nft_json::read(&mut &*line).map_err(Some)?;
                    gathered.nft(self.namespace.clone(), tables);
                }
                // These lines are passed over, unless they look like another kind.
                Printed::Events | Printed::Sets | Printed::Sockets | Printed::Other => {
                    // A prompt begins something else.
                    let is_unread = Printed::is_part_of_rules(&self.of);
                    if prompt::command(line, self.kind).is_some()
                        || !is_unread
                            && Printed::of_line(line).is_some_and(|kind| kind != self.kind)
                    {
                        return Err(None);
                    }
                }
                kind => small::take(kind, text(line)?, (&self.of, namespace, piece), gathered)?,
            },
        }
        self.is_empty = false;
        Ok(())
    }

    /// A line of this part was not understood.
    pub(super) fn lose(&mut self) {
        if let Body::Entries(part) = &mut self.body {
            part.lose();
        }
    }

    /// Hands over what was read: no more lines come.
    pub(super) fn finish(self, piece: &str, gathered: &mut BundleParts) {
        let namespace = self.namespace.as_deref();
        // A command that printed nothing is an answer; an empty file is not.
        if !self.is_empty || !self.is_by_name {
            gathered.count(self.kind);
        }
        gathered.has_settings |= self.kind == Printed::SysctlFile;
        match self.body {
            Body::Entries(part) if self.kind == Printed::Expectations => {
                if let Some(within) = gathered.within(namespace) {
                    within.expectations = Some(part.expected());
                }
            }
            Body::Entries(part) => part.finish(namespace, piece, gathered),
            Body::Counters(part) => part.finish(namespace, piece, gathered),
            Body::Saved(part) => part.finish(namespace, gathered),
            Body::Listed(part) => part.finish(namespace, gathered),
            Body::Nft(part) => gathered.nft(self.namespace, part.finish()),
            Body::Adapter(part) => part.finish(namespace, gathered),
            Body::Hooks(part) => part.finish(namespace, gathered),
            Body::Log(part) => part.finish(gathered),
            Body::Plain => {}
        }
    }
}

fn text(line: &[u8]) -> Result<&str, Why> {
    std::str::from_utf8(line).map_err(|_| Some("no text"))
}

//! Source as words: without comments, strings and lifetimes; with or without what is for tests only.

/// A word, `::`, or one other character; and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

pub(crate) fn texts<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    tokens.iter().map(|token| token.text).collect()
}

pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let length = if let Some(length) = skipped(rest) {
            length
        } else {
            let length = word(rest);
            let length = match length {
                0 if rest.starts_with("::") => 2,
                0 => rest.chars().next().map_or(1, char::len_utf8),
                some => some,
            };
            found.push(Token { text: &rest[..length], at });
            length
        };
        at += length;
    }
    found
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// How long the space, the comment, the string, the character or the lifetime is that begins here.
fn skipped(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    for prefix in ["", "b", "c"] {
        let Some(after) = rest.strip_prefix(prefix) else { continue };
        if after.starts_with('"') {
            return Some(prefix.len() + quoted(after, '"'));
        }
        if let Some(raw) = after.strip_prefix('r') {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            if raw[hashes..].starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let body = prefix.len() + 1 + hashes + 1;
                let length = rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
                return Some(length);
            }
        }
    }
    let (prefix, after) = rest.strip_prefix('b').map_or((0, rest), |after| (1, after));
    if let Some(inner) = after.strip_prefix('\'') {
        let mut inner = inner.chars();
        let (one, two) = (inner.next()?, inner.next());
        if one == '\\' || two == Some('\'') {
            return Some(prefix + quoted(after, '\''));
        }
        return (prefix == 0).then(|| 1 + word(&after[1..]));
    }
    None
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            match rest[at..].chars().next() {
                Some(c) => at += c.len_utf8(),
                None => return at,
            }
        }
        if depth == 0 {
            return at;
        }
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

const FOR_TESTS: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Without the items that are compiled for tests only.
pub(crate) fn product<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if starts(&tokens[at..], &FOR_TESTS) {
            at = end_of_item(tokens, at);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

pub(crate) fn starts(tokens: &[Token<'_>], with: &[&str]) -> bool {
    tokens.len() >= with.len() && tokens.iter().zip(with).all(|(token, text)| token.text == *text)
}

/// After the attributes and the item that begin here.
fn end_of_item(tokens: &[Token<'_>], mut at: usize) -> usize {
    while starts(&tokens[at..], &["#", "["]) {
        at = after_brackets(tokens, at + 1);
    }
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "{" => {
                let after = after_brackets(tokens, at);
                // A list of imports ends with its semicolon.
                let has_more = tokens.get(after).is_some_and(|token| token.text == ";");
                return after + usize::from(has_more);
            }
            "(" | "[" => at = after_brackets(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// After the bracket that closes the one at this place.
pub(crate) fn after_brackets(tokens: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_lifetimes_are_no_words() {
        let source = r##"a // b
            /* c /* d */ e */ f "g \" h" r#"i " j"# b"k" 'l' b'\'' '\\' &'m n 'o: p b q"##;
        assert_eq!(texts(&tokens(source)), ["a", "f", "&", "n", ":", "p", "b", "q"]);
    }

    #[test]
    fn what_is_for_tests_is_left_out() {
        let source = "use a; #[cfg(test)] use b::{c, d}; #[cfg(test)] #[path = \"e\"] mod f; \
             #[cfg(test)] fn g(h: [u8; 2]) -> i { j(); } #[cfg(test)] const K: L = M([1; 2]); \
             #[cfg(not(test))] n";
        let tokens = tokens(source);
        let rest = texts(&product(&tokens)).join(" ");
        assert_eq!(rest, "use a ; # [ cfg ( not ( test ) ) ] n");
    }
}

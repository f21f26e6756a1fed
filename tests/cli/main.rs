//! The command line, as a user meets it. Nothing here needs a privilege.

#![expect(clippy::panic, reason = "a test may")]

use std::process::{Command, Output};

fn ctwatch(args: &[&str]) -> Output {
    let built = option_env!("CARGO_BIN_EXE_ctwatch").unwrap_or("ctwatch");
    let path = std::env::var_os("CTWATCH_BIN").unwrap_or_else(|| built.into());
    let output = Command::new(path).args(args).output();
    output.unwrap_or_else(|error| panic!("cannot start ctwatch: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_wrong() {
    for (args, complaint) in [
        (&["--bogus"][..], "--bogus"),
        (&["wacth"], "neither a command nor a time"),
        (&["watch", "--interval", "0"], "between 100ms and one day"),
        (&["watch", "--interval", "-1s"], "unexpected argument"),
        (&["watch", "--count", "0"], "0"),
        (&["watch", "--count", "many"], "many"),
        (&["watch", "--output", "xml"], "xml"),
        (&["watch", "--mechanism", "magic"], "magic"),
        (&["watch", "1", "--interval", "1"], "cannot be used with"),
        (&["trace", "--src", "nowhere"], "neither an address nor a prefix"),
        (&["trace", "--proto", "300"], "neither a protocol"),
        (&["trace", "--rate", "0"], "0"),
        (&["trace", "--reason", "bad_luck"], "bad_luck"),
        (&["census", "--by", "colour"], "colour"),
        (&["census", "--top", "0"], "0"),
    ] {
        let output = ctwatch(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(complaint), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_exit_0() {
    for args in [
        &["--help"][..],
        &["watch", "--help"],
        &["census", "--help"],
        &["trace", "--help"],
        &["-h"],
        &["--version"],
    ] {
        let output = ctwatch(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_namespace_that_does_not_exist_exits_1_in_one_line() {
    let output = ctwatch(&["--netns", "no\u{1b}such"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(!errors.contains('\u{1b}'), "{errors:?}");
}

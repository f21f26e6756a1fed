//! The command line, as a user meets it. Nothing here needs a privilege.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod collect;
mod docs;
mod evening;
mod help;
mod offline;
mod strangers;
#[path = "../values/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod values;
mod versions;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use ctwatch_lab::plugin;

/// On no terminal.
fn command(args: &[&str]) -> Command {
    let built = option_env!("CARGO_BIN_EXE_ctwatch").unwrap_or("ctwatch");
    let path = std::env::var_os("CTWATCH_BIN").unwrap_or_else(|| built.into());
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::null());
    command
}

fn ctwatch(args: &[&str]) -> Output {
    let output = command(args).output();
    output.unwrap_or_else(|error| panic!("cannot start ctwatch: {error}"))
}

/// Of the workspace.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_wrong() {
    for (args, complaint) in [
        (&["--bogus"][..], "--bogus"),
        (&["wacth"], "neither a command nor a time"),
        (&["help", "wacth"], "neither a command nor a time"),
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
        (&["serve", "--web.listen-address", "localhost"], "no address and port such as"),
        (&["serve", "--web.listen-address", ":99999"], "no address and port such as"),
        (&["serve", "--web.telemetry-path", "metrics"], "no path such as /metrics"),
        (&["serve", "--web.telemetry-path", "/"], "no path such as /metrics"),
        (&["serve", "--web.telemetry-path", "/-/healthy"], "no path such as /metrics"),
        (&["serve", "--web.telemetry-path", "/a\u{1b}b"], "no path such as /metrics"),
        (&["serve", "--compat", "netdata"], "netdata"),
        (&["serve", "--interval", "1ms"], "between 100ms and one day"),
        (&["serve", "--web.systemd-socket", "--web.listen-address", ":1"], "cannot be used with"),
        (&["serve", "--record", "/none", "--mask"], "--record records what there is"),
        (&["serve", "rt"], "unexpected argument"),
        #[cfg(not(feature = "tls"))]
        (
            &["serve", "--web.listen-address", "127.0.0.1:0", "--web.config.file", "x"],
            "built without TLS",
        ),
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
fn the_version_is_printed() {
    let output = ctwatch(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("ctwatch {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_namespace_that_does_not_exist_exits_1_in_one_line() {
    let output = ctwatch(&["--netns", "no\u{1b}such"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(!errors.contains('\u{1b}'), "{errors:?}");
}

#[test]
fn an_address_that_cannot_be_listened_on_exits_1_in_one_line() {
    for (args, complaint) in [
        (&["--web.listen-address", "192.0.2.1:1"][..], "cannot listen on 192.0.2.1:1: "),
        (&["--web.systemd-socket"], "systemd handed over no socket"),
        (&["--textfile", "/none/there"], "cannot write into /none/there: "),
    ] {
        let output = ctwatch(&[&["serve"], args].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
        assert!(errors.contains(complaint) && errors.lines().count() == 1, "{args:?}: {errors}");
    }
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = open.local_addr().unwrap().to_string();
    let output = ctwatch(&["serve", "--web.listen-address", &taken]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("cannot listen on {taken}")), "{errors}");
}

#[test]
fn what_no_packet_can_be_is_wrong_usage() {
    for (args, complaint) in [
        (&["--src", "10.0.0.0/8", "--dst", "fd00::/8"][..], "of different families"),
        (&["--dport", "no-such-service"], "no service is called"),
        (&["--dport", "ssh", "--proto", "dccp"], "no dccp service is called"),
        (&["--dport", "70000"], "neither a port"),
    ] {
        let output = ctwatch(&[&["trace"], args].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
        assert!(errors.contains(complaint), "{args:?}: {errors}");
    }
}

/// What a check says, which is one line, and in words what its exit code says.
fn check(args: &[&str]) -> plugin::Output {
    let output = ctwatch(&[&["check"], args].concat());
    let line = text(&output.stdout);
    let said = plugin::parse("CTWATCH", &line);
    let said = said.unwrap_or_else(|error| panic!("{args:?}: {line}: {error:#}"));
    assert_eq!(output.status.code(), Some(said.code()), "{args:?}: {line}");
    assert!(output.stderr.is_empty(), "{args:?}: {}", text(&output.stderr));
    said
}

#[test]
fn wrong_usage_of_check_is_unknown_and_not_critical() {
    for (args, complaint) in [
        (&["--bogus"][..], "--bogus"),
        (&["rt"], "unexpected argument"),
        (&["-w"], "a value is required"),
        (&["-w", ""], "a limit is written"),
        (&["-w", "80"], "a limit is written"),
        (&["-w", "75%,fill=80%"], "fill has two limits"),
        (&["-w", "0%"], "no share such as 80%"),
        (
            &["-w", "90%", "-c", "fill=80%"],
            "fill: the warning at 90% is beyond the critical at 80%",
        ),
        (&["-w", "drops=2", "-c", "drops=1"], "drops: the warning at 2 a second"),
        (&["-w", "dropped=2", "-c", "dropped=1"], "dropped: the warning at 2"),
        (&["-w", "pinned=2%", "-c", "pinned=1%"], "pinned: the warning"),
        (&["-w", "full=1m", "-c", "full=2m"], "full: the warning at 60 s"),
        (&["-w", "fill=80"], "no share such as 80%"),
        (&["-w", "fill=0%"], "no share such as 80%"),
        (&["-c", "fill=101%"], "no share such as 80%"),
        (&["-c", "pinned=-1%"], "no share such as 80%"),
        (&["-c", "drops=some"], "no number of packets"),
        (&["-c", "drops=-1"], "no number of packets"),
        (&["-c", "full=soon"], "no time such as"),
        (&["-c", "fill=80%,load=5"], "none of fill, pinned, drops, full"),
        (&["-c", "fill=80%,fill=90%"], "fill has two limits"),
        (&["-w", "drops=1", "-w", "drops=1"], "drops has two limits"),
        (&["-w", "fill=\u{1b}|\n80%"], "no share such as 80%"),
        (&["--for", "0"], "between 100ms and one day"),
        (&["--for", "soon"], "no time such as"),
        (&["--mechanism", "fexit"], "--mechanism"),
    ] {
        let said = check(args);
        assert_eq!(said.state, "UNKNOWN", "{args:?}");
        assert!(said.text.contains(complaint), "{args:?}: {}", said.text);
        assert!(said.metrics.is_empty(), "{args:?}: {said:?}");
    }
}

#[test]
fn a_default_threshold_is_no_wrong_usage() {
    for args in [&["-c", "50%"][..], &["-w", "98%"], &["-c", "fill=1%"], &["-w", "drops=2"]] {
        let said = check(&[&["--for", "100ms"], args].concat());
        assert!(!said.text.contains("beyond the critical"), "{args:?}: {}", said.text);
    }
}

#[test]
fn a_check_of_a_namespace_that_does_not_exist_is_unknown() {
    let said = check(&["--netns", "no\u{1b}|such"]);
    // Where nothing is tracked at all, that is said first.
    if said.state != "OK" {
        assert_eq!(said.state, "UNKNOWN", "{said:?}");
    }
}

/// With whatever there is on this machine, and whoever runs the test.
#[test]
fn a_check_says_what_its_exit_code_says() {
    let limits = ["-w", "fill=100%", "-c", "fill=100%,drops=1000000"];
    for more in [&[][..], &["-w", "pinned=100%"], &["-c", "full=1"]] {
        check(&[&["--for", "100ms"], &limits[..], more].concat());
    }
}

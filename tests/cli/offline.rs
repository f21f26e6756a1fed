//! What other tools printed, diagnosed as any user, on any Linux.

use std::{fs, io::Write, process::Stdio};

use crate::{command, ctwatch, root, text};

fn dump(name: &str) -> String {
    root().join("tests/fixtures/dumps").join(name).display().to_string()
}

/// With this on standard input.
fn fed(args: &[&str], input: &str) -> (String, String, Option<i32>) {
    let mut command = command(args);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn a_switch_s_text_is_diagnosed_from_a_file() {
    let output = ctwatch(&["doctor", "--from", &dump("29-techsupport.txt")]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for expected in [
        "29-techsupport.txt: sonic, Linux 5.10.0-18-2-amd64, of an unknown time",
        "host tracks: 2 of 131072 entries",
        "read\n  conntrack -L\n  conntrack -S\n",
        "undecided, and what settles it\n",
        "nft -a list ruleset",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}

#[test]
fn a_list_on_standard_input_is_counted() {
    let list = fs::read_to_string(dump("12-conntrack-L-offload-1.4.7.txt")).unwrap();
    let (json, errors, code) = fed(&["census", "--from", "-", "-o", "json"], &list);
    assert_eq!(code, Some(0), "{errors}");
    let census: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&census["entries"], &census["time"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!(census["tables"][0]["offloaded"], 2, "{census:#}");
}

#[test]
fn what_is_damaged_is_named_with_its_line() {
    let list = "tcp 6 9 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 \
                sport=2 dport=1 [ASSURED] use=1\ntcp 6 9 ESTABL\u{7}ISHED src=1.1.1.1 dst=2.2\n";
    let (report, errors, code) = fed(&["doctor", "--from", "-"], list);
    assert_eq!(code, Some(0), "{errors}");
    assert!(report.contains("not understood\n  standard input line 2"), "{report}");
    assert!(!report.contains('\u{7}'), "{report:?}");
    let (census, errors, _) = fed(&["census", "--from", "-"], list);
    assert!(census.starts_with(">=1 entries"), "{census}");
    assert!(errors.contains("not understood: standard input line 2"), "{errors}");
}

#[test]
fn what_holds_nothing_known_is_an_error() {
    let (_, errors, code) = fed(&["doctor", "--from", "-"], "Hello,\nit drops packets.\n");
    assert_eq!(code, Some(1));
    assert!(errors.contains("nothing in - is known here"), "{errors}");
    let (_, errors, code) = fed(&["census", "--from", "-"], "net.netfilter.nf_conntrack_max = 1\n");
    assert_eq!(code, Some(1));
    assert!(errors.contains("no entry of a table is in -"), "{errors}");
    let at = ["doctor", "--from", &dump("03-stat-4.19.txt"), "--at", "03:00"];
    let output = ctwatch(&at);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("is a moment of a recording"));
}

#[test]
fn two_bundles_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, max: u32| {
        let path = folder.path().join(name);
        let lines = "net.netfilter.nf_conntrack_count = 90\nnet.netfilter.nf_conntrack_max = ";
        fs::write(&path, format!("{lines}{max}\n")).unwrap();
        path.display().to_string()
    };
    let (one, other) = (write("a", 100), write("b", 1000));
    let output = ctwatch(&["doctor", "--diff", &one, &other]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for expected in [
        "  found: table_full: yes | -\n",
        "  nf_conntrack_max: 100 | 1000\n",
        "  host: entries: 90 (90%) | 90 (9%)\n",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
}

#[test]
fn a_masked_report_names_nobody() {
    let names = ["10.0.0.1", "10.0.0.0", "sonic", "techsupport"];
    for args in [&["doctor", "--mask", "--from"][..], &["census", "--mask", "--from"]] {
        let output = ctwatch(&[args, &[&dump("29-techsupport.txt")]].concat());
        let report = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{report}");
        assert!(report.contains("host") && report.contains("2"), "{report}");
        // The form of a version is no address.
        let report = report.replace("5.10.0-18-2-amd64", "");
        for name in names {
            assert!(!report.contains(name), "{name}: {report}");
        }
    }
}

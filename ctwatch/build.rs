//! Finds the compiled probes, so that they are part of the executable.
//!
//! `cargo xtask build` compiles them and says where they are. Without it (an editor, a lint) the
//! executable is built with none, and says so when it runs.

fn main() {
    println!("cargo::rerun-if-env-changed=CTWATCH_PROBES");
    println!("cargo::rustc-check-cfg=cfg(probes)");
    if let Some(path) = std::env::var_os("CTWATCH_PROBES") {
        let path = std::path::PathBuf::from(path);
        assert!(path.is_file(), "CTWATCH_PROBES={} is no file", path.display());
        println!("cargo::rerun-if-changed={}", path.display());
        println!("cargo::rustc-env=CTWATCH_PROBES={}", path.display());
        println!("cargo::rustc-cfg=probes");
    }
}

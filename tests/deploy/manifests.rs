//! What is applied to Kubernetes: rendered, valid, and as little privilege as is listed.

use std::{
    collections::BTreeSet,
    env::var_os,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Needs, Test, dist, documents, list, read, root, rules, said, schema::Schemas, text,
    unit::CAPABILITIES,
};

const KUBERNETES: Needs = Needs::Variable("CTWATCH_KUBERNETES");

pub(crate) const TESTS: &[Test] = &[
    Test { name: "manifests_are_valid", needs: &[KUBERNETES], run: valid },
    Test { name: "a_wrong_manifest_is_not_valid", needs: &[KUBERNETES], run: wrong },
    Test { name: "pods_have_the_least_privilege", needs: &[KUBERNETES], run: least },
    Test { name: "the_chart_renders_what_kustomize_does", needs: &[KUBERNETES], run: alike },
    Test { name: "rules_are_the_same_everywhere", needs: &[Needs::Nothing], run: same_rules },
    Test {
        name: "the_node_problem_detector_understands_the_check",
        needs: &[Needs::Variable("CTWATCH_BIN")],
        run: node_problem,
    },
];

fn tool(name: &str) -> Result<PathBuf> {
    Ok(Path::new(&var_os("CTWATCH_KUBERNETES").context("no folder")?).join(name))
}

fn kustomized(folder: &str) -> Result<Vec<Value>> {
    let folder = dist("kubernetes").join(folder);
    documents(&said(Command::new(tool("kubectl")?).arg("kustomize").arg(folder))?)
}

/// Without and with what the Prometheus operator needs.
fn chart(options: &[&str]) -> Result<Vec<Value>> {
    let home = tempfile::tempdir()?;
    let mut helm = Command::new(tool("helm")?);
    helm.env("HOME", home.path())
        .args(["template", "ctwatch", "--namespace", "ctwatch"])
        .args(options);
    documents(&said(helm.arg(dist("helm/ctwatch")))?)
}

const WITH_OPERATOR: [&str; 2] = ["--set", "podMonitor.enabled=true,prometheusRule.enabled=true"];

fn valid() -> Result<()> {
    let schemas = Schemas::open(&tool("schemas")?)?;
    for (objects, kinds) in [
        (kustomized("base")?, &["DaemonSet", "Namespace", "ServiceAccount"][..]),
        (
            kustomized("prometheus-operator")?,
            &["DaemonSet", "Namespace", "PodMonitor", "PrometheusRule", "ServiceAccount"],
        ),
        (chart(&[])?, &["DaemonSet", "ServiceAccount"]),
        (chart(&WITH_OPERATOR)?, &["DaemonSet", "PodMonitor", "PrometheusRule", "ServiceAccount"]),
    ] {
        let found: BTreeSet<_> =
            objects.iter().map(|object| text(object, "kind")).collect::<Result<_>>()?;
        ensure!(found == kinds.iter().copied().collect(), "{found:?}");
        for object in &objects {
            match text(object, "apiVersion")? {
                // The operator's schemas are not Kubernetes'.
                "monitoring.coreos.com/v1" => {}
                _ => schemas.validate(object)?,
            }
            if object["kind"] != "Namespace" {
                ensure!(object["metadata"]["namespace"] == "ctwatch", "{object}");
            }
        }
    }
    let lint =
        said(Command::new(tool("helm")?).args(["lint", "--strict"]).arg(dist("helm/ctwatch")))?;
    ensure!(lint.contains("0 chart(s) failed"), "{lint}");
    Ok(())
}

/// What the schemas are for.
fn wrong() -> Result<()> {
    let schemas = Schemas::open(&tool("schemas")?)?;
    let good = daemon_set(&kustomized("base")?)?.clone();
    for (path, value) in [
        ("/spec/template/spec/hostPid", json!(true)),
        ("/spec/template/spec/hostPID", json!("yes")),
        ("/spec/template/spec/containers/0/securityContext/seccomp", json!({})),
        ("/spec/template/spec/containers/0/ports/0/containerPort", json!("10466")),
        ("/spec/updateStrategy/type", json!(1)),
        ("/spec/selector", Value::Null),
    ] {
        let mut bad = good.clone();
        let (parent, key) = path.rsplit_once('/').context("no path")?;
        let parent = bad.pointer_mut(parent).and_then(Value::as_object_mut).context("no parent")?;
        parent.insert(key.to_owned(), value);
        ensure!(schemas.validate(&bad).is_err(), "{path} passes");
    }
    schemas.validate(&good)
}

fn daemon_set(objects: &[Value]) -> Result<&Value> {
    objects.iter().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")
}

fn least() -> Result<()> {
    for objects in [kustomized("base")?, chart(&[])?] {
        let pod = &daemon_set(&objects)?["spec"]["template"]["spec"];
        let [container] = &list(pod, "containers")?[..] else { anyhow::bail!("not one container") };
        let security = &container["securityContext"];
        ensure!(
            security["privileged"] == false && security["allowPrivilegeEscalation"] == false,
            "{security}"
        );
        ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
        ensure!(security["seccompProfile"]["type"] == "RuntimeDefault", "{security}");
        ensure!(security["capabilities"]["drop"] == json!(["ALL"]), "{security}");
        let mut added: Vec<_> =
            list(&security["capabilities"], "add")?.iter().filter_map(Value::as_str).collect();
        added.sort_unstable();
        ensure!(added == CAPABILITIES, "{added:?}");
        ensure!(pod["automountServiceAccountToken"] == false, "{pod}");
        // Without these it reads an empty table, or one.
        ensure!(pod["hostPID"] == true && pod["hostNetwork"] == true, "{pod}");
        ensure!(pod.get("hostIPC").is_none(), "{pod}");
        let read_only = |mount: &Value| mount["readOnly"] == true;
        ensure!(list(container, "volumeMounts")?.iter().all(read_only), "{container}");
        // Nothing of the API server's.
        let kinds: Vec<_> = objects.iter().map(|object| &object["kind"]).collect();
        ensure!(
            !kinds.iter().any(|kind| kind.as_str().is_some_and(|kind| kind.contains("Role"))),
            "{kinds:?}"
        );
    }
    Ok(())
}

/// Two ways to the same pod.
fn alike() -> Result<()> {
    let (kustomized, chart) = (kustomized("prometheus-operator")?, chart(&WITH_OPERATOR)?);
    let pod = |objects: &[Value]| {
        Ok::<_, anyhow::Error>(daemon_set(objects)?["spec"]["template"]["spec"].clone())
    };
    ensure!(pod(&kustomized)? == pod(&chart)?, "{}\n{}", pod(&kustomized)?, pod(&chart)?);
    let of = |objects: &[Value], kind: &str, path: &str| {
        let object = objects.iter().find(|object| object["kind"] == kind);
        object
            .and_then(|object| object.pointer(path))
            .cloned()
            .with_context(|| format!("{kind} {path}"))
    };
    for (kind, path) in [("PrometheusRule", "/spec"), ("PodMonitor", "/spec/podMetricsEndpoints")] {
        ensure!(of(&kustomized, kind, path)? == of(&chart, kind, path)?, "{kind} differs");
    }
    Ok(())
}

/// The operator's object is a copy: kustomize reads no file outside of its folder.
fn same_rules() -> Result<()> {
    let rules = read(&dist(rules::FILE))?;
    let groups = rules.find("groups:").context("no groups")?;
    let indented =
        |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let groups: String = rules[groups..].lines().map(indented).collect();
    let file = dist("kubernetes/prometheus-operator/prometheusrule.yaml");
    let copy = read(&file)?;
    let head = copy.find("spec:\n").context("no spec")? + "spec:\n".len();
    let wanted = format!("{}{groups}", &copy[..head]);
    if var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &wanted)?;
        return Ok(());
    }
    ensure!(
        copy == wanted,
        "prometheusrule.yaml is not ctwatch.rules.yml: UPDATE_EXPECT=1 writes it"
    );
    ensure!(
        fs::read_link(dist("helm/ctwatch/files/ctwatch.rules.yml"))?
            .ends_with("prometheus/ctwatch.rules.yml")
    );
    Ok(())
}

/// Its configuration is of its kind, and the command line in it is one of ctwatch's.
fn node_problem() -> Result<()> {
    let config: Value = serde_json::from_str(&read(&dist("node-problem-detector/ctwatch.json"))?)?;
    ensure!(
        config["plugin"] == "custom" && config["pluginConfig"]["max_output_length"] == 80,
        "{config}"
    );
    let conditions: BTreeSet<_> = list(&config, "conditions")?
        .iter()
        .map(|condition| text(condition, "type"))
        .collect::<Result<_>>()?;
    for rule in list(&config, "rules")? {
        ensure!(conditions.contains(text(rule, "condition")?), "{rule}");
        let args: Vec<_> = list(rule, "args")?.iter().filter_map(Value::as_str).collect();
        let program = var_os("CTWATCH_BIN").context("no ctwatch")?;
        let output = Command::new(program).args(&args).current_dir(root()).output()?;
        let line = String::from_utf8(output.stdout)?;
        let code = output.status.code();
        ensure!(matches!(code, Some(0..=2)), "{code:?} {line}");
        ensure!(line.lines().count() == 1 && line.trim_end().len() <= 80, "{line}");
        let begins = ["OK: ", "WARNING: ", "CRITICAL: ", "UNKNOWN: "];
        ensure!(begins.iter().any(|begin| line.starts_with(begin)), "{line}");
    }
    Ok(())
}

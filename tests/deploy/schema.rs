//! As much of JSON Schema as the schemas of Kubernetes use; a word that it does not know is an error.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{read, text};

pub(crate) struct Schemas {
    folder: std::path::PathBuf,
    definitions: Value,
}

impl Schemas {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let definitions = serde_json::from_str(&read(&folder.join("_definitions.json"))?)?;
        Ok(Self { folder: folder.to_path_buf(), definitions })
    }

    /// Strictly: a field that the kind does not have is an error.
    pub(crate) fn validate(&self, object: &Value) -> Result<()> {
        let (kind, version) = (text(object, "kind")?, text(object, "apiVersion")?);
        let file = format!("{}-{}.json", kind, version.replace('/', "-")).to_lowercase();
        let schema = serde_json::from_str(&read(&self.folder.join(file))?)?;
        self.check(object, &schema)
            .with_context(|| format!("{kind} {}", object["metadata"]["name"]))
    }

    fn check(&self, value: &Value, schema: &Value) -> Result<()> {
        for (word, of) in schema.as_object().context("no schema")? {
            match word.as_str() {
                "$ref" => {
                    let path = of
                        .as_str()
                        .and_then(|path| path.split_once('#'))
                        .context("no reference")?;
                    let target =
                        self.definitions.pointer(path.1).with_context(|| path.1.to_owned())?;
                    self.check(value, target)?;
                }
                "type" => ensure!(is_of(value, of), "{value} is no {of}"),
                "enum" => {
                    ensure!(of.as_array().is_some_and(|all| all.contains(value)), "{value}: {of}")
                }
                "oneOf" => {
                    let fits = |schema: &&Value| self.check(value, schema).is_ok();
                    let count = of.as_array().into_iter().flatten().filter(fits).count();
                    ensure!(count == 1, "{value} is none of {of}");
                }
                "required" => {
                    for key in of.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        ensure!(value.get(key).is_some_and(|value| !value.is_null()), "no {key}");
                    }
                }
                "properties" | "additionalProperties" => self.fields(value, schema)?,
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(item, of).with_context(|| format!("[{number}]"))?;
                    }
                }
                "description" | "format" | "$schema" | "$id" => {}
                word if word.starts_with("x-kubernetes-") => {}
                word => bail!("what is {word} in a schema?"),
            }
        }
        Ok(())
    }

    fn fields(&self, value: &Value, schema: &Value) -> Result<()> {
        for (key, field) in value.as_object().into_iter().flatten() {
            let known = schema["properties"].get(key);
            let of = known.or_else(|| schema.get("additionalProperties"));
            match of {
                Some(Value::Bool(false)) => bail!("there is no field {key}"),
                Some(Value::Object(_)) => {
                    self.check(field, of.context("no schema")?).with_context(|| key.clone())?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_of(value: &Value, types: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("null") => value.is_null(),
        _ => false,
    };
    types.as_array().map_or_else(|| is(types), |all| all.iter().any(is))
}

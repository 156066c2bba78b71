//! The part of JSON Schema that `netbcc schema` uses, read strictly: an unknown word is an error, so nothing that a
//! schema says goes unchecked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::run::{binary, spawn};

/// A tool's schema.
#[derive(Clone, Debug)]
pub struct Schema(Arc<Value>);

impl Schema {
    /// What the binary under test says of this tool. Asked once.
    pub fn of(tool: &str) -> Self {
        static KNOWN: Mutex<Option<HashMap<String, Schema>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let load = || {
            let mut command = Command::new(binary());
            command.args(["schema", tool]).stdin(Stdio::null()).stdout(Stdio::piped());
            let child = spawn(&mut command).expect("netbcc starts");
            let said = child.wait_with_output().expect("its pipe can be read");
            assert!(said.status.success(), "netbcc schema {tool}: {said:?}");
            Self::parse(&String::from_utf8_lossy(&said.stdout))
        };
        known.get_or_insert_default().entry(tool.to_owned()).or_insert_with(load).clone()
    }

    /// Reads a schema.
    pub fn parse(text: &str) -> Self {
        Self(Arc::new(serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON: {e}: {text}"))))
    }

    /// Why a line is not what the schema says.
    ///
    /// # Errors
    /// The line is no JSON, or the schema does not allow it.
    pub fn check(&self, line: &str) -> Result<(), String> {
        valid(&serde_json::from_str(line).map_err(|e| e.to_string())?, &self.0)
    }

    /// Why it is no JSON Schema of version 2020-12.
    ///
    /// # Errors
    /// A word is unknown, or is not followed by what it must be.
    pub fn well_formed(&self) -> Result<(), String> {
        self.0.get("$schema").ok_or("it does not say that it is a schema")?;
        well_formed(&self.0)
    }

    /// The schemas of objects in it: itself, or one per kind of row.
    pub fn objects(&self) -> Vec<&Value> {
        match self.0["oneOf"].as_array() {
            Some(kinds) => kinds.iter().collect(),
            None => vec![&self.0],
        }
    }
}

/// Why this is no JSON Schema of the version that it names: what the meta-schemas of 2020-12 demand of each word that we
/// use. The reader itself knows no other words.
fn well_formed(schema: &Value) -> Result<(), String> {
    let words = schema.as_object().ok_or("a schema is no object")?;
    for (word, says) in words {
        let list =
            || says.as_array().filter(|list| !list.is_empty()).ok_or(format!("{word}: no list, or empty"));
        let unique = |list: &[Value]| list.iter().enumerate().all(|(i, item)| !list[..i].contains(item));
        let good = match word.as_str() {
            "$schema" => says == "https://json-schema.org/draft/2020-12/schema",
            "$id" => says.as_str().is_some_and(|id| id.starts_with("urn:") && !id.contains(['#', ' '])),
            "title" | "description" | "x-otel" | "format" | "pattern" => says.is_string(),
            "type" => says.as_str().is_some_and(|kind| is(&Value::Null, kind).is_ok()),
            "minimum" | "maximum" => says.is_number(),
            "enum" => unique(list()?),
            "required" => {
                let known = words
                    .get("properties")
                    .and_then(Value::as_object)
                    .ok_or("required, but no properties")?;
                unique(list()?)
                    && list()?.iter().all(|key| key.as_str().is_some_and(|key| known.contains_key(key)))
            }
            "anyOf" | "oneOf" => list()?.iter().try_for_each(well_formed).map(|()| true)?,
            "items" => well_formed(says).map(|()| true)?,
            "properties" => {
                let inner = says.as_object().ok_or("properties are no object")?;
                inner
                    .iter()
                    .try_for_each(|(key, inner)| well_formed(inner).map_err(|why| format!("{key}: {why}")))?;
                true
            }
            "additionalProperties" => says.is_boolean(),
            _ => false,
        };
        if !good {
            return Err(format!("{word} may not be {says}"));
        }
    }
    Ok(())
}

fn valid(value: &Value, schema: &Value) -> Result<(), String> {
    let words = schema.as_object().ok_or("a schema is no object")?;
    for (word, says) in words {
        let list = || says.as_array().ok_or(format!("{word} is no list"));
        let fits = match word.as_str() {
            "$schema" | "$id" | "title" | "description" | "x-otel" => true,
            "type" => is(value, says.as_str().unwrap_or_default())?,
            "enum" => list()?.contains(value),
            "minimum" => value.is_u64() || value.as_f64() >= says.as_f64(),
            "maximum" => value.as_f64() <= says.as_f64(),
            "format" => formatted(value.as_str().unwrap_or_default(), says.as_str().unwrap_or_default())?,
            "pattern" if says == "^[0-9a-f]+$" => value.as_str().is_some_and(|text| {
                !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            }),
            "items" => return each(value, says),
            "anyOf" => list()?.iter().any(|schema| valid(value, schema).is_ok()),
            "oneOf" => {
                let errors: Vec<String> =
                    list()?.iter().filter_map(|schema| valid(value, schema).err()).collect();
                if errors.len() + 1 != list()?.len() {
                    return Err(format!("not exactly one of: {}", errors.join("; or ")));
                }
                true
            }
            "properties" => {
                for (key, schema) in says.as_object().ok_or("properties are no object")? {
                    if let Some(value) = value.get(key) {
                        valid(value, schema).map_err(|why| format!("{key}: {why}"))?;
                    }
                }
                true
            }
            "required" => {
                for key in list()? {
                    if value.get(key.as_str().unwrap_or_default()).is_none() {
                        return Err(format!("{key} is missing"));
                    }
                }
                true
            }
            "additionalProperties" if says == false => {
                let known = words["properties"].as_object().ok_or("properties are no object")?;
                if let Some(key) =
                    value.as_object().into_iter().flatten().find(|(key, _)| !known.contains_key(*key))
                {
                    return Err(format!("{} is not in the schema", key.0));
                }
                true
            }
            _ => return Err(format!("the schema has an unknown word: {word}: {says}")),
        };
        if !fits {
            return Err(format!("{value} is not {word} {says}"));
        }
    }
    Ok(())
}

fn each(value: &Value, schema: &Value) -> Result<(), String> {
    value.as_array().ok_or("no list")?.iter().try_for_each(|item| valid(item, schema))
}

fn is(value: &Value, kind: &str) -> Result<bool, String> {
    Ok(match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => return Err(format!("unknown type {kind}")),
    })
}

fn formatted(text: &str, format: &str) -> Result<bool, String> {
    Ok(match format {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        // As narrow as netbcc writes it: UTC, nanoseconds.
        "date-time" => {
            let form = text.replace(|c: char| c.is_ascii_digit(), "0");
            form == "0000-00-00T00:00:00.000000000Z"
        }
        _ => return Err(format!("unknown format {format}")),
    })
}

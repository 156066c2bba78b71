//! `netbcc schema`: what a tool's JSON rows look like, from the columns that write them.

use std::ffi::OsString;

use anyhow::Result;

use super::args::{parse_args, print as answer};
use super::verbs;
use crate::out::{Field, Rows, quoted};
use crate::tool::Entry;

/// `netbcc schema TOOL`.
pub(super) fn print(args: Vec<OsString>, tools: &'static [Entry]) -> Result<()> {
    let Some(matches) = parse_args(verbs::schema(tools), args)? else { return Ok(()) };
    match verbs::tool(&matches, tools) {
        Some(entry) => answer(of_tool(entry)?),
        None => Ok(()),
    }
}

/// JSON Schema 2020-12, with `x-otel` where OpenTelemetry has a name for a field.
pub(crate) fn of_tool(entry: &Entry) -> Result<String> {
    let spec = entry.spec;
    let kinds = (entry.rows)()?;
    let body = match &kinds[..] {
        [rows] => object(rows, "  "),
        kinds => {
            let kinds: Vec<String> = kinds
                .iter()
                .map(|rows| {
                    format!(
                        "    {{\n      \"title\": {},\n{}\n    }}",
                        quoted(rows.about),
                        object(rows, "      ")
                    )
                })
                .collect();
            format!("  \"oneOf\": [\n{}\n  ]", kinds.join(",\n"))
        }
    };
    Ok(format!(
        "{{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"$id\": \"urn:netbcc:{version}:{name}\",\n  \
         \"title\": {title},\n  \"description\": {about},\n{body}\n}}\n",
        version = env!("CARGO_PKG_VERSION"),
        name = spec.name,
        title = quoted(spec.name),
        about = quoted(spec.about),
    ))
}

/// The keywords of one kind of row, each on a line, indented.
fn object(rows: &Rows, indent: &str) -> String {
    let always = Field::of_every_row();
    let fields: Vec<&Field> = always.iter().chain(&rows.fields).filter(|field| field.has_key()).collect();
    let properties: Vec<String> = fields
        .iter()
        .map(|field| format!("{indent}  {}: {}", quoted(&field.key()), field.schema()))
        .collect();
    let required: Vec<String> =
        fields.iter().filter(|field| field.is_required()).map(|field| quoted(&field.key())).collect();
    format!(
        "{indent}\"type\": \"object\",\n{indent}\"properties\": {{\n{}\n{indent}}},\n{indent}\"required\": [{}],\n\
         {indent}\"additionalProperties\": false",
        properties.join(",\n"),
        required.join(", ")
    )
}

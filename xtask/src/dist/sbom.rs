//! The list of all that is linked in, as SPDX 2.3 in JSON.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::VERSION;
use super::crates::{Key, Linked, Part};

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
/// The binary itself is not its crate: it has a checksum, and holds other things.
const BINARY: &str = "SPDXRef-Package-binary";

/// The document's text, of this time. The checksum is the binary's, and makes the document's name its own.
///
/// # Errors
/// The document is not what SPDX demands.
pub(super) fn write(linked: &Linked, checksum: &str, created: &str) -> Result<String> {
    let document = document(linked, checksum, created);
    if let Some(problem) = problem(&document) {
        bail!("the SPDX document is wrong: {problem}");
    }
    Ok(format!("{document:#}\n"))
}

fn document(linked: &Linked, checksum: &str, created: &str) -> Value {
    let mut packages = vec![json!({
        "SPDXID": BINARY,
        "name": "netbcc",
        "versionInfo": VERSION,
        "primaryPackagePurpose": "APPLICATION",
        "packageFileName": "netbcc",
        "downloadLocation": concat!("git+", env!("CARGO_PKG_REPOSITORY")),
        "homepage": env!("CARGO_PKG_REPOSITORY"),
        "filesAnalyzed": false,
        "checksums": [{"algorithm": "SHA256", "checksumValue": checksum}],
        "licenseDeclared": env!("CARGO_PKG_LICENSE"),
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })];
    packages.extend(linked.parts.iter().map(|(key, part)| package(key, part)));
    let relation = |from: &str, kind: &str, to: &str| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut relations = vec![relation(DOCUMENT, "DESCRIBES", BINARY)];
    relations.extend(linked.parts.keys().map(|key| relation(BINARY, "STATIC_LINK", &id(key))));
    relations.extend(linked.needs.iter().map(|(from, to)| relation(&id(from), "DEPENDS_ON", &id(to))));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": format!("netbcc-{VERSION}"),
        "documentNamespace": format!("{}/spdx/netbcc-{VERSION}-{checksum}", env!("CARGO_PKG_REPOSITORY")),
        "creationInfo": {"created": created, "creators": ["Tool: netbcc-xtask"]},
        "packages": packages,
        "relationships": relations,
    })
}

fn package(key: &Key, part: &Part) -> Value {
    let mut package = json!({
        "SPDXID": id(key),
        "name": part.name,
        "versionInfo": part.version,
        "primaryPackagePurpose": "LIBRARY",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseDeclared": part.licence,
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    });
    if let Some(repository) = &part.repository {
        package["homepage"] = json!(repository);
    }
    if let Some(checksum) = &part.checksum {
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{}@{}", part.name, part.version.replace('+', "%2B")),
        }]);
    }
    package
}

/// A part's name in the document: letters, digits, dots and dashes only.
fn id((name, version): &Key) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    // `a_b` and `a-b` would be one; no two crates of a registry differ by that alone.
    format!("SPDXRef-Package-{name}-{version}").chars().map(plain).collect()
}

/// The first thing that SPDX 2.3 demands and the document does not have.
fn problem(document: &Value) -> Option<String> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    for (name, wanted) in [("spdxVersion", "SPDX-2.3"), ("dataLicense", "CC0-1.0"), ("SPDXID", DOCUMENT)] {
        if text(document, name) != wanted {
            return Some(format!("{name} is not {wanted}"));
        }
    }
    let namespace = text(document, "documentNamespace");
    if !namespace.contains("://") || namespace.contains(['#', ' ']) || text(document, "name").is_empty() {
        return Some("it has no name, or its namespace is no URI".to_owned());
    }
    let digits = text(&document["creationInfo"], "created").replace(|c: char| c.is_ascii_digit(), "0");
    if digits != "0000-00-00T00:00:00Z" {
        return Some("the time of its creation is not as SPDX writes times".to_owned());
    }
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let mut ids = BTreeSet::from([DOCUMENT.to_owned()]);
    for package in list("packages") {
        let id = text(&package, "SPDXID");
        let plain = |rest: &str| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        };
        if !id.strip_prefix("SPDXRef-").is_some_and(plain) || !ids.insert(id.clone()) {
            return Some(format!("{id:?} is no SPDXID, or is there twice"));
        }
        for name in [
            "name",
            "versionInfo",
            "downloadLocation",
            "licenseDeclared",
            "licenseConcluded",
            "copyrightText",
        ] {
            if text(&package, name).is_empty() {
                return Some(format!("{id} has no {name}"));
            }
        }
        let sums = package["checksums"].as_array().cloned().unwrap_or_default();
        let good = |sum: &Value| {
            let value = text(sum, "checksumValue");
            value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !sums.iter().all(good) {
            return Some(format!("{id} has a checksum that is no SHA-256"));
        }
    }
    if ids.len() < 3 {
        return Some("it names no packages".to_owned());
    }
    let relations = list("relationships");
    for relation in &relations {
        for name in ["spdxElementId", "relatedSpdxElement"] {
            if !ids.contains(&text(relation, name)) {
                return Some(format!("a relation names {:?}, which is not there", text(relation, name)));
            }
        }
    }
    let described =
        relations.iter().filter(|relation| text(relation, "relationshipType") == "DESCRIBES").count();
    (described != 1).then(|| "it describes not exactly one thing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let key = |name: &str| (name.to_owned(), "1.0.0+x".to_owned());
        let part = |name: &str| Part {
            name: name.to_owned(),
            version: "1.0.0+x".to_owned(),
            licence: "MIT".to_owned(),
            checksum: Some("0a".repeat(32)),
            is_crate: true,
            ..Part::default()
        };
        let parts = ["a_b", "c"].map(|name| (key(name), part(name))).into();
        document(
            &Linked { parts, needs: [(key("a_b"), key("c"))].into() },
            &"f".repeat(64),
            "2026-11-24T13:40:29Z",
        )
    }

    #[test]
    fn a_document_has_all_that_is_demanded() {
        let good = sample();
        assert_eq!(problem(&good), None);
        assert_eq!(good["packages"][1]["SPDXID"], "SPDXRef-Package-a-b-1.0.0-x");
        assert_eq!(good["packages"][1]["externalRefs"][0]["referenceLocator"], "pkg:cargo/a_b@1.0.0%2Bx");
        assert_eq!(good["creationInfo"]["created"], "2026-11-24T13:40:29Z");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (path, wrong, says) in [
            ("/spdxVersion", json!("SPDX-2.2"), "spdxVersion"),
            ("/documentNamespace", json!("netbcc"), "URI"),
            ("/creationInfo/created", json!("today"), "time"),
            ("/packages/1/SPDXID", json!("SPDXRef-a_b"), "SPDXID"),
            ("/packages/1/SPDXID", json!(BINARY), "twice"),
            ("/packages/1/licenseDeclared", json!(""), "licenseDeclared"),
            ("/packages/1/checksums/0/checksumValue", json!("zz"), "checksum"),
            ("/relationships/1/relatedSpdxElement", json!("SPDXRef-gone"), "gone"),
            ("/relationships/0/relationshipType", json!("CONTAINS"), "describes"),
            ("/packages", json!([]), "no packages"),
        ] {
            let mut document = sample();
            *document.pointer_mut(path).expect("is there") = wrong;
            let problem = problem(&document).expect(path);
            assert!(problem.contains(says), "{path}: {problem}");
        }
    }
}

//! Holds records of `--json=otlp` against the protobufs that OpenTelemetry publishes.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{output, run, target, workspace};

/// The package of the Python Package Index that has the protobufs.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";

/// The check, as a command: `tests/otlp.py` reads the fixture of all tools' records.
///
/// # Errors
/// Its Python or the package cannot be had here.
pub(crate) fn check() -> Result<Command> {
    let records = workspace().join("tests/fixtures/otlp/rows.json");
    let mut cmd = Command::new(python()?);
    cmd.arg(workspace().join("tests/otlp.py"));
    cmd.stdin(File::open(&records).with_context(|| records.display().to_string())?);
    Ok(cmd)
}

/// A Python that has the package, in an environment of its own below `target/`.
fn python() -> Result<PathBuf> {
    let folder = target().join("otlp");
    let python = folder.join("bin/python");
    let mut has = Command::new(&python);
    has.args(["-c", "import opentelemetry.proto.collector.logs.v1.logs_service_pb2"]);
    if !python.exists() || output(&mut has).is_err() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
            .context("python3 -m venv")?;
        let mut pip = Command::new(&python);
        // A machine without a network must not wait for long.
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--timeout", "20", "--retries", "1", "--only-binary=:all:", PACKAGE]);
        run(&mut pip).with_context(|| format!("pip install {PACKAGE}"))?;
    }
    Ok(python)
}

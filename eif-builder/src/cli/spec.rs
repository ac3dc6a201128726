//! Reads enclave.toml.

use explain::{CliError, Exit};
use std::path::Path;
use wire::spec::Spec;

pub(super) fn read(path: &Path) -> Result<Spec, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        CliError::new(
            Exit::Config,
            format!("cannot read {shown}: {e}"),
            "Check --spec.",
        )
    })?;
    Spec::parse(&text).map_err(|e| {
        CliError::new(
            Exit::Config,
            format!("{shown}: {e}"),
            "Correct enclave.toml.",
        )
    })
}

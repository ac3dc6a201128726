//! Shows what the daemon knows, and what an enclave says of itself.

use super::{CliError, path, print, print_json};
use attestation::sandbox::{UnsignedDocument, read_unsigned};
use host_proxy::client::Client;
use host_proxy::record::Record;
use hyper::Method;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct AttestationArgs {
    /// Name or id
    name: String,
    /// Nonce to have in the document, in hexadecimal digits [default: 32 random bytes]
    #[arg(long)]
    nonce: Option<String>,
    /// Also write the document to this file
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub(super) async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let records: Vec<Record> = client.json(Method::GET, "/v1/enclaves", Vec::new()).await?;
    if json {
        return print_json(&records);
    }
    if records.is_empty() {
        return print("no enclaves; 'enclavectl create' makes one");
    }
    let width = records
        .iter()
        .map(|record| record.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    print(&format!(
        "{:<width$}  {:<15}  {:<18}  IMAGE",
        "NAME", "STATUS", "ID"
    ))?;
    for Record {
        id,
        name,
        status,
        image,
        ..
    } in &records
    {
        print(&format!(
            "{name:<width$}  {:<15}  {:<18}  {image}",
            status.to_string(),
            id.as_str()
        ))?;
    }
    Ok(())
}

pub(super) async fn one(client: &Client, name: &str, json: bool) -> Result<(), CliError> {
    let record: Record = client
        .json(Method::GET, &path(name, "")?, Vec::new())
        .await?;
    if json {
        print_json(&record)
    } else {
        print(&summary(&record))
    }
}

/// One line a fact.
pub(super) fn summary(record: &Record) -> String {
    let Record {
        id,
        name,
        status,
        stage,
        fault,
        image,
        image_digest,
        credentials_arn,
        measurements,
        config,
        ingress,
        attestation,
        updated_at,
        ..
    } = record;
    let mut lines = vec![
        format!("{name}  {status}"),
        format!("  id           {id}"),
        format!("  image        {image}"),
    ];
    let mut add = |what: &str, text: String| lines.push(format!("  {what:<12} {text}"));
    if let Some(digest) = image_digest {
        add("digest", digest.clone());
    }
    if let Some(stage) = stage {
        add("stage", stage.to_string());
    }
    if let Some(measurements) = measurements {
        for (what, pcr) in [
            ("PCR0", measurements.pcr0),
            ("PCR1", measurements.pcr1),
            ("PCR2", measurements.pcr2),
        ] {
            add(what, pcr.to_string());
        }
    }
    if let Some(config) = config {
        add(
            "config",
            format!("{}, version {}", config.name, config.version),
        );
    }
    for rule in ingress {
        add(
            "ingress",
            format!("{} -> port {} of the enclave", rule.address, rule.port),
        );
    }
    if let Some(address) = attestation {
        add("attestation", format!("attest fetch http://{address} …"));
    }
    if let Some(arn) = credentials_arn {
        add("credentials", arn.clone());
    }
    if let Some(fault) = fault {
        let stage = fault
            .stage
            .map(|stage| format!(" at {stage}"))
            .unwrap_or_default();
        add(
            "fault",
            format!("{:?}{stage}: {}", fault.code, fault.message),
        );
        add("next", fault.hint.clone());
        add(
            "retryable",
            if fault.retryable {
                "yes: 'enclavectl redeploy' may do"
            } else {
                "not without a change"
            }
            .to_owned(),
        );
    }
    add("updated", updated_at.clone());
    lines.join("\n")
}

/// Fetches a document and compares it with the measurements of the build.
pub(super) async fn attestation(
    client: &Client,
    args: &AttestationArgs,
    json: bool,
) -> Result<(), CliError> {
    let nonce = match &args.nonce {
        Some(text) => hex::decode(text).map_err(|e| {
            CliError::new(
                Exit::Usage,
                format!("--nonce: {e}"),
                "write it in hexadecimal digits",
            )
        })?,
        None => {
            let mut bytes = vec![0; 32];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
                CliError::new(
                    Exit::Unavailable,
                    "the system gives no randomness",
                    "try again",
                )
            })?;
            bytes
        }
    };
    let record: Record = client
        .json(Method::GET, &path(&args.name, "")?, Vec::new())
        .await?;
    let query = format!("/attestation?nonce={}", hex::encode(&nonce));
    let document = client
        .bytes(Method::GET, &path(&args.name, &query)?, Vec::new())
        .await?;
    if let Some(output) = &args.output {
        std::fs::write(output, &document).map_err(|e| {
            CliError::new(
                Exit::Unavailable,
                format!("{}: {e}", output.display()),
                "check --output",
            )
        })?;
    }
    let UnsignedDocument {
        pcrs,
        nonce: echoed,
        module_id,
        timestamp,
        ..
    } = read_unsigned(&document).map_err(|e| {
        CliError::new(
            Exit::Data,
            e,
            "this command reads the sandbox's unsigned documents only",
        )
    })?;
    let measured = record.measurements.ok_or_else(|| {
        CliError::new(
            Exit::Refused,
            "nothing was built yet",
            "wait until it is deployed",
        )
    })?;
    let verdict = pcrs.expect(&measured);
    let fresh = echoed.as_deref() == Some(nonce.as_slice());
    if json {
        let registers: std::collections::BTreeMap<String, String> = pcrs
            .iter()
            .map(|(index, pcr)| (format!("PCR{index}"), pcr.to_string()))
            .collect();
        print_json(
            &serde_json::json!({ "module_id": module_id, "timestamp": timestamp, "pcrs": registers, "fresh": fresh, "matches": verdict.is_ok(), "signed": false }),
        )?;
    } else {
        for (index, expected) in [(0, measured.pcr0), (1, measured.pcr1), (2, measured.pcr2)] {
            let found = pcrs.get(index);
            let mark = if found == Some(&expected) {
                "✓"
            } else {
                "✗"
            };
            print(&format!(
                "{mark} PCR{index}   {}",
                found.map_or("missing".to_owned(), ToString::to_string)
            ))?;
        }
        print(&format!(
            "{} nonce  {}",
            if fresh { "✓" } else { "✗" },
            hex::encode(&nonce)
        ))?;
        print(
            "- signature: none. QEMU's NSM signs nothing, so this proves nothing to anybody but this host",
        )?;
    }
    verdict.map_err(|mismatch| {
        CliError::new(
            Exit::Refused,
            mismatch,
            "the enclave is not what was built; redeploy it and find out why",
        )
    })?;
    match fresh {
        true => Ok(()),
        false => Err(CliError::new(
            Exit::Refused,
            "the document carries another nonce",
            "it is not an answer to this request",
        )),
    }
}

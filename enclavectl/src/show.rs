//! `enclavectl list` and `show`: what the daemon knows.

use crate::ui;
use api::client::Client;
use api::{DeployError, HealthRecord, Record, Status, WorkloadRecord};
use explain::CliError;
use hyper::Method;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id
    name: String,
}

pub(crate) async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let records: Vec<Record> = client.json(Method::GET, "/v1/enclaves", Vec::new()).await?;
    if json {
        ui::print_json(&records)
    } else {
        ui::print(&table(&records))
    }
}

pub(crate) async fn one(client: &Client, Args { name }: &Args, json: bool) -> Result<(), CliError> {
    let path = ui::path(name, "")?;
    let record: Record = client.json(Method::GET, &path, Vec::new()).await?;
    if json {
        ui::print_json(&record)
    } else {
        ui::print(&summary(&record))
    }
}

/// Says of an enclave in debug mode that it is one, beside what else is shown of it.
pub(crate) async fn warn_of_debug(client: &Client, name: &str) -> Result<(), CliError> {
    let path = ui::path(name, "")?;
    let record: Record = client.json(Method::GET, &path, Vec::new()).await?;
    if let Some(notice) = record.debug_notice() {
        ui::tell(&format!("{}: {notice}", record.name));
    }
    Ok(())
}

fn table(records: &[Record]) -> String {
    if records.is_empty() {
        return "no enclaves; 'enclavectl create' makes one".to_owned();
    }
    let names = records.iter().map(|record| record.name.len());
    let width = names.max().unwrap_or(0).max(4);
    let statuses: Vec<String> = records.iter().map(status).collect();
    let lengths = statuses.iter().map(String::len);
    let status_width = lengths.max().unwrap_or(0).max(15);
    let row = |name: &str, status: &str, id: &str, image: &str| {
        format!("{name:<width$}  {status:<status_width$}  {id:<18}  {image}")
    };
    let mut lines = vec![row("NAME", "STATUS", "ID", "IMAGE")];
    lines.extend(records.iter().zip(&statuses).map(|(record, status)| {
        let mut image = record.image.to_string();
        if let Some(notice) = record.debug_notice() {
            image = format!("{image}  {notice}");
        }
        row(&record.name, status, record.id.as_str(), &image)
    }));
    lines.join("\n")
}

/// While it is deployed, with how its workload is.
fn status(record: &Record) -> String {
    let status = record.state.status();
    let WorkloadRecord {
        restarts, health, ..
    } = &record.workload;
    let health = health.as_ref().map(|health| health.state.to_string());
    let restarts = match restarts {
        0 => None,
        1 => Some("1 restart".to_owned()),
        n => Some(format!("{n} restarts")),
    };
    let known: Vec<String> = health.into_iter().chain(restarts).collect();
    if known.is_empty() || status != Status::Deployed {
        return status.to_string();
    }
    format!("{status} ({})", known.join(", "))
}

/// One line for each fact.
pub(crate) fn summary(record: &Record) -> String {
    let notice = record.debug_notice();
    let notice = notice.map(|text| format!("  {text}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{}  {}{notice}",
        record.name,
        record.state.status()
    )];
    let facts = facts(record).into_iter();
    lines.extend(facts.map(|(label, text)| format!("  {label:<12} {text}")));
    lines.join("\n")
}

/// Label and text, in the order in which they are shown.
fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("id", record.id.to_string()),
        ("image", record.image.to_string()),
    ];
    let digest = record.image_digest.iter();
    facts.extend(digest.map(|digest| ("digest", digest.to_string())));
    let stage = record.state.stage().into_iter();
    facts.extend(stage.map(|stage| ("stage", stage.to_string())));
    if let Some(measurements) = &record.measurements {
        facts.push(("PCR0", measurements.pcr0.to_string()));
        facts.push(("PCR1", measurements.pcr1.to_string()));
        facts.push(("PCR2", measurements.pcr2.to_string()));
    }
    if let Some(config) = &record.config {
        let text = format!("{}, version {}", config.name, config.version);
        facts.push(("config", text));
    }
    for ingress in &record.ingress {
        let text = format!(
            "{} -> port {} of the enclave",
            ingress.address, ingress.port
        );
        facts.push(("ingress", text));
    }
    if let Some(address) = record.attestation {
        facts.push(("attestation", format!("attest fetch http://{address} …")));
    }
    let arn = record.credentials_arn.iter();
    facts.extend(arn.map(|arn| ("credentials", arn.clone())));
    facts.extend(workload_facts(&record.workload));
    if let Some(failure) = record.state.failure() {
        facts.extend(failure_facts(failure));
    }
    facts.push(("updated", record.updated_at.clone()));
    facts
}

fn workload_facts(workload: &WorkloadRecord) -> Vec<(&'static str, String)> {
    let WorkloadRecord {
        restarts,
        last_exit,
        health,
        dropped_lines,
    } = workload;
    let mut facts = Vec::new();
    if let Some(HealthRecord {
        state,
        detail,
        since,
    }) = health
    {
        let detail = match detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        facts.push(("health", format!("{state} since {since}{detail}")));
    }
    if *restarts > 0 {
        facts.push(("restarts", restarts.to_string()));
    }
    facts.extend(last_exit.map(|exit| ("last exit", exit.to_string())));
    if *dropped_lines > 0 {
        let text = format!("{dropped_lines} lines of output, because the host was too slow");
        facts.push(("dropped", text));
    }
    facts
}

fn failure_facts(failure: &DeployError) -> [(&'static str, String); 3] {
    let DeployError {
        code,
        stage,
        retryable,
        message,
        next_step,
    } = failure;
    let stage = stage.map(|stage| format!(" at stage {stage}"));
    let stage = stage.unwrap_or_default();
    let retryable = if *retryable {
        "yes: 'enclavectl redeploy' may succeed as things are"
    } else {
        "no: redeploying fails again until the cause is fixed"
    };
    [
        ("failure", format!("{code}{stage}: {message}")),
        ("next step", next_step.clone()),
        ("retryable", retryable.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(more: Value) -> Record {
        let mut json = json!({
            "id": "e-0123456789abcdef", "name": "web", "status": "DEPLOYED", "generation": 1, "provider": "qemu",
            "source_type": "public-registry", "image": "ghcr.io/org/httpd:2.4",
            "created_at": "2026-01-03T20:41:07.000000Z", "updated_at": "2026-01-03T20:41:08.000000Z",
        });
        let Value::Object(more) = more else {
            panic!("an object")
        };
        json.as_object_mut().unwrap().extend(more);
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_deployed_enclave_shows_where_it_listens() {
        let shown = summary(&record(json!({
            "config": { "name": "shop", "version": 3, "kms_key": "arn", "sha256": "aa" },
            "ingress": [{ "port": 8080, "address": "127.0.0.1:40000" }],
            "attestation": "127.0.0.1:40001",
        })));
        let expected = [
            "web  DEPLOYED",
            "  id           e-0123456789abcdef",
            "  image        ghcr.io/org/httpd:2.4",
            "  config       shop, version 3",
            "  ingress      127.0.0.1:40000 -> port 8080 of the enclave",
            "  attestation  attest fetch http://127.0.0.1:40001 …",
            "  updated      2026-01-03T20:41:08.000000Z",
        ];
        assert_eq!(shown, expected.join("\n"));
    }

    #[test]
    fn an_enclave_in_debug_mode_is_called_so_wherever_it_is_shown() {
        let debug = record(json!({ "debug": true }));
        let notice = "DEBUG: not confidential";
        let first = format!("web  DEPLOYED  {notice}");
        assert_eq!(summary(&debug).lines().next(), Some(first.as_str()));
        assert!(table(std::slice::from_ref(&debug)).ends_with(notice));
        let json = serde_json::to_value(&debug).unwrap();
        assert_eq!(json.get("debug"), Some(&Value::Bool(true)));
        let plain = record(json!({}));
        assert!(!summary(&plain).contains("DEBUG"));
        assert!(!table(std::slice::from_ref(&plain)).contains("DEBUG"));
    }

    #[test]
    fn a_workloads_health_restarts_and_end_are_shown() {
        let workload = json!({
            "restarts": 2, "last_exit": { "code": 7 }, "dropped_lines": 5,
            "health": { "state": "unhealthy", "detail": "status 503", "since": "T" },
        });
        let ill = record(json!({ "workload": workload }));
        let expected = [
            "  health       unhealthy since T: status 503",
            "  restarts     2",
            "  last exit    exit code 7",
            "  dropped      5 lines of output, because the host was too slow",
        ];
        assert!(summary(&ill).contains(&expected.join("\n")), "{ill:?}");
        let list = table(std::slice::from_ref(&ill));
        let row = "web   DEPLOYED (unhealthy, 2 restarts)  e-";
        assert!(list.contains(row), "{list}");
        let failed = json!({ "code": "INTERNAL", "stage": null, "retryable": false, "message": "", "next_step": "" });
        let ended = record(json!({ "status": "FAILED", "failure": failed, "workload": workload }));
        assert!(table(&[ended]).contains("web   FAILED           e-"));
    }

    #[test]
    fn a_failure_shows_its_code_stage_and_next_step() {
        let shown = summary(&record(json!({
            "status": "FAILED",
            "failure": {
                "code": "REGISTRY_UNAUTHORIZED", "stage": "resolve", "retryable": false,
                "message": "the registry said no", "next_step": "Check the password.",
            },
        })));
        for line in [
            "web  FAILED",
            "  failure      REGISTRY_UNAUTHORIZED at stage resolve: the registry said no",
            "  next step    Check the password.",
            "  retryable    no: redeploying fails again until the cause is fixed",
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} is not in {shown}"
            );
        }
    }

    #[test]
    fn a_list_has_columns_as_wide_as_the_longest_name() {
        let long = record(json!({ "name": "a-long-name", "status": "DEPLOYING", "stage": "pull" }));
        let table = table(&[record(json!({})), long]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "NAME         STATUS           ID                  IMAGE",
                "web          DEPLOYED         e-0123456789abcdef  ghcr.io/org/httpd:2.4",
                "a-long-name  DEPLOYING        e-0123456789abcdef  ghcr.io/org/httpd:2.4",
            ]
        );
    }
}

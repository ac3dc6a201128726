//! From flags and files to a policy and a trust anchor.

use super::{Case, Failure};
use attestation::{Conditions, Measurements, Pcr, Policy, Time, TrustAnchor, ValidityTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A policy or a certificate is a few KiB; more is not one. In bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A register and its value; given twice for the same register, either value will do
    #[arg(long = "pcr", value_name = "N=HEX")]
    pcrs: Vec<String>,
    /// Conditions in TOML or JSON; the output of `eif-builder build --json` is one. Flags add conditions; only --allow-debug and --at loosen one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// PCR0, 1, 2 (and 8) as JSON of eif-builder or nitro-cli
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// The IAM role of the parent instance (PCR3)
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// The parent instance (PCR4)
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,
    /// The certificate that the image is signed with (PCR8)
    #[arg(long, value_name = "PEM-FILE")]
    signing_certificate: Option<PathBuf>,
    /// A sealed config must have been opened (PCR16); means something beside a PCR0 whose spec has [config]
    #[arg(long)]
    sealed_config: bool,
    /// The public key that the document must carry
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// The user data that the document must carry
    #[arg(long, value_name = "HEX")]
    user_data: Option<String>,
    /// Accept an enclave in debug mode, whose memory is open to its parent
    #[arg(long)]
    allow_debug: bool,
    /// When the document must be valid: now, at its own time (with a nonce only), or at a time like 2026-01-03T20:41:07Z
    #[arg(long, value_name = "now|document|TIME")]
    at: Option<At>,
    /// How old the document may be, in seconds; otherwise its certificate decides, which lives for three hours
    #[arg(long, value_name = "S")]
    max_age: Option<u64>,
    /// How far the clocks may differ, in seconds [default: 60]
    #[arg(long, value_name = "S")]
    clock_skew: Option<u64>,
    /// Trust this root instead of AWS's: real enclaves will not pass
    #[arg(long, value_name = "PEM-FILE")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Now,
    Document,
    Time(Time),
}

impl std::str::FromStr for At {
    type Err = attestation::TimeError;
    fn from_str(text: &str) -> Result<At, Self::Err> {
        match text {
            "now" => Ok(At::Now),
            "document" => Ok(At::Document),
            time => time.parse().map(At::Time),
        }
    }
}

impl At {
    /// The only place where this program asks a clock.
    pub(super) fn now(self) -> Time {
        match self {
            At::Time(time) => time,
            At::Now | At::Document => SystemTime::now().into(),
        }
    }
}

pub(super) fn hexadecimal(flag: &str, digits: &str) -> Result<Vec<u8>, Failure> {
    hex::decode(digits)
        .map_err(|e| Failure::new(format!("{flag}: {e}"), "write it in hexadecimal digits"))
}

impl Arguments {
    pub(super) fn case(self, nonce: Option<Vec<u8>>) -> Result<Case, Failure> {
        let mut conditions = match &self.policy {
            None => Conditions::default(),
            Some(path) => policy_file(path)?,
        };
        // Two flags for one register are alternatives; a value of the file is not replaced by a flag's.
        let mut flags = BTreeMap::<u8, BTreeSet<Pcr>>::new();
        for pcr in &self.pcrs {
            let (index, pcr) = register(pcr)?;
            flags.entry(index).or_default().insert(pcr);
        }
        for (index, allowed) in flags {
            only_once(
                &format!("PCR{index}"),
                conditions.pcrs.insert(index, allowed),
            )?;
        }
        if let Some(path) = &self.measurements {
            only_once(
                "measurements",
                conditions.measurements.replace(measurements(path)?),
            )?;
        }
        if let Some(arn) = self.role_arn {
            only_once("role_arn", conditions.role_arn.replace(arn))?;
        }
        if let Some(id) = self.instance_id {
            only_once("instance_id", conditions.instance_id.replace(id))?;
        }
        if let Some(path) = &self.signing_certificate {
            only_once(
                "signing_certificate",
                conditions.signing_certificate.replace(text(path)?),
            )?;
        }
        for (flag, slot, digits) in [
            ("public_key", &mut conditions.public_key, self.public_key),
            ("user_data", &mut conditions.user_data, self.user_data),
        ] {
            if let Some(digits) = digits {
                only_once(flag, slot.replace(hexadecimal(flag, &digits)?))?;
            }
        }
        if let Some(nonce) = nonce {
            only_once("nonce", conditions.nonce.replace(nonce))?;
        }
        conditions.sealed_config |= self.sealed_config;
        conditions.allow_debug |= self.allow_debug;
        if let Some(seconds) = self.max_age {
            only_once(
                "max_age_seconds",
                conditions.max_age_seconds.replace(seconds),
            )?;
        }
        if let Some(seconds) = self.clock_skew {
            only_once(
                "clock_skew_seconds",
                conditions.clock_skew_seconds.replace(seconds),
            )?;
        }
        match self.at {
            Some(At::Document) => conditions.time = ValidityTime::Document,
            Some(At::Now | At::Time(_)) => conditions.time = ValidityTime::Now,
            None => {}
        }
        let policy = Policy::new(conditions)
            .map_err(|e| Failure::new(e, "`attest verify --help` lists all conditions"))?;
        let at = self.at.unwrap_or(At::Now);
        let cautions = cautions(&policy, at, self.root.as_deref());
        Ok(Case {
            anchor: anchor(self.root.as_deref())?,
            policy,
            at,
            cautions,
            json: self.json,
        })
    }
}

/// What weakens the verdict, whatever it is.
fn cautions(policy: &Policy, at: At, root: Option<&Path>) -> Vec<String> {
    let mut cautions = Vec::new();
    if let Some(path) = root {
        cautions.push(format!(
            "{} is trusted in place of AWS's root",
            path.display()
        ));
    }
    if let At::Time(time) = at {
        cautions.push(format!(
            "this is as of {time}, by --at: an old document passes"
        ));
    }
    if !policy.fixes_code() {
        cautions.push(
            "this policy does not fix the code that runs; ask for PCR0 (or PCR8, or PCR1 and PCR2 together)"
                .to_owned(),
        );
    }
    cautions
}

fn only_once<T>(name: &str, earlier: Option<T>) -> Result<(), Failure> {
    match earlier {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            format!("{name} is in the policy file and among the flags"),
            "leave one of them out",
        )),
    }
}

fn register(text: &str) -> Result<(u8, Pcr), Failure> {
    const HINT: &str = "write it like --pcr 0=3d2a… with 96 digits";
    let wrong =
        |problem: &dyn std::fmt::Display| Failure::new(format!("--pcr {text}: {problem}"), HINT);
    let (index, value) = text
        .split_once('=')
        .ok_or_else(|| wrong(&"the = is missing"))?;
    Ok((
        index.parse().map_err(|e| wrong(&e))?,
        value.parse().map_err(|e| wrong(&e))?,
    ))
}

fn anchor(root: Option<&Path>) -> Result<TrustAnchor, Failure> {
    let Some(path) = root else {
        return Ok(TrustAnchor::aws());
    };
    let wrong = |problem: &dyn std::fmt::Display| {
        Failure::new(
            format!("{}: {problem}", path.display()),
            "give a root certificate in PEM",
        )
    };
    let der = CertificateDer::from_pem_slice(text(path)?.as_bytes()).map_err(|e| wrong(&e))?;
    TrustAnchor::from_der(&der).map_err(|e| wrong(&e))
}

fn text(path: &Path) -> Result<String, Failure> {
    let bytes = super::document::read_bounded(path, MAX_FILE)?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{} is not text", path.display()), "check the path"))
}

/// TOML or JSON, by the first character: a policy in TOML never starts with a brace.
fn policy_file(path: &Path) -> Result<Conditions, Failure> {
    let text = text(path)?;
    let parsed = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text).map_err(|e| e.to_string()),
        false => toml::from_str(&text).map_err(|e| e.to_string()),
    };
    parsed.map_err(|e| {
        Failure::new(
            format!("{}: {}", path.display(), e.trim_end()),
            "the README lists the keys of a policy",
        )
    })
}

fn measurements(path: &Path) -> Result<Measurements, Failure> {
    let wrong = |e: serde_json::Error| {
        Failure::new(
            format!("{}: {e}", path.display()),
            "give the JSON of `eif-builder build --json`, `eif-builder describe` or nitro-cli",
        )
    };
    let text = text(path)?;
    let keys: Keys = serde_json::from_str(&text).map_err(wrong)?;
    match keys {
        Keys { nitro: Some(_), .. } => {
            serde_json::from_str(&text).map(|Nitro { measurements }| measurements)
        }
        Keys { built: Some(_), .. } => {
            serde_json::from_str(&text).map(|Built { measurements, .. }| measurements)
        }
        _ => serde_json::from_str(&text),
    }
    .map_err(wrong)
}

/// Which of the forms a file has.
#[derive(serde::Deserialize)]
struct Keys {
    #[serde(rename = "Measurements")]
    nitro: Option<IgnoredAny>,
    #[serde(rename = "measurements")]
    built: Option<IgnoredAny>,
}

/// nitro-cli says much else.
#[derive(serde::Deserialize)]
struct Nitro {
    #[serde(rename = "Measurements")]
    measurements: Measurements,
}

/// A policy has other keys: it belongs to --policy, where they count.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Built {
    #[serde(rename = "eif")]
    _eif: Option<IgnoredAny>,
    #[serde(rename = "image")]
    _image: Option<IgnoredAny>,
    measurements: Measurements,
}

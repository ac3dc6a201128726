//! From flags and files to a policy and a trust anchor.

use super::error::CommandError;
use super::verification::{At, Verification};
use super::{input, measurements};
use attestation::{Conditions, Kind, MaxAge, Origin, Pcr, Policy, TrustAnchor, ValidityTime};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    /// A register and its value; repeat it for the same register to allow alternatives
    #[arg(long = "pcr", value_name = "N=HEX")]
    pcrs: Vec<String>,
    /// Conditions in TOML or JSON, such as the output of `eif-builder build --json`. Flags add
    /// conditions to it; only --allow-debug, --at and --max-age relax one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// PCR0, 1, 2 (and 8): the JSON output of eif-builder or nitro-cli
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
    /// Require that a sealed config was opened (PCR16); only meaningful with the PCR0 of an image
    /// whose spec declares one
    #[arg(long)]
    sealed_config: bool,
    /// The public key that the document must carry
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// The user data that the document must carry; with --origin, what must follow the tag
    #[arg(long, value_name = "HEX")]
    user_data: Option<String>,
    /// For whom the agent of a Redoubt enclave must have had the document made: endpoint, workload,
    /// kms or agent
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<Origin>,
    /// Accept an enclave in debug mode, whose memory the parent instance can read
    #[arg(long)]
    allow_debug: bool,
    /// When certificates must be valid: now, at the document's own time (requires a nonce), or at a
    /// time like 2026-01-03T20:41:07Z
    #[arg(long, value_name = "now|document|TIME")]
    at: Option<At>,
    /// The greatest age of the document, in seconds, or "certificate" for as long as its
    /// certificate is valid, three hours [default: 300 without a nonce, certificate with one]
    #[arg(long, value_name = "SECONDS", value_parser = max_age)]
    max_age: Option<MaxAge>,
    /// How far the clocks may differ, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    clock_skew: Option<u64>,
    /// Trust this root certificate instead of AWS's; documents of real enclaves are then rejected
    #[arg(long, value_name = "PEM-FILE")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PolicyArgs {
    pub(super) fn verification(self, nonce: Option<Vec<u8>>) -> Result<Verification, CommandError> {
        let at = self.at.unwrap_or(At::Now);
        let conditions = self.conditions(nonce)?;
        let mut cautions: Vec<String> = replay(&conditions).into_iter().collect();
        if conditions.sealed_config && !conditions.pcrs.contains_key(&CONFIG_REGISTER) {
            cautions.push(ANY_CONFIG.to_owned());
        }
        if conditions.kind == Kind::Any {
            cautions.push(ANY_KIND.to_owned());
        }
        let policy = Policy::new(conditions)
            .map_err(|e| CommandError::new(e, "`attest verify --help` lists all conditions"))?;
        cautions.extend(self::cautions(&policy, at, self.root.as_deref()));
        Ok(Verification {
            anchor: anchor(self.root.as_deref())?,
            policy,
            at,
            cautions,
            json: self.json,
        })
    }

    /// The conditions of the policy file, and those of the flags. A flag never replaces a condition
    /// of the file.
    fn conditions(&self, nonce: Option<Vec<u8>>) -> Result<Conditions, CommandError> {
        let mut conditions = match &self.policy {
            None => Conditions::default(),
            Some(path) => policy_file(path)?,
        };
        self.add_registers(&mut conditions)?;
        add(
            "public_key",
            &mut conditions.public_key,
            decoded("public_key", self.public_key.as_deref())?,
        )?;
        add(
            "user_data",
            &mut conditions.user_data,
            decoded("user_data", self.user_data.as_deref())?,
        )?;
        add("nonce", &mut conditions.nonce, nonce)?;
        add("origin", &mut conditions.origin, self.origin)?;
        conditions.sealed_config |= self.sealed_config;
        conditions.allow_debug |= self.allow_debug;
        if let Some(max_age) = self.max_age {
            if conditions.max_age != MaxAge::Default {
                return Err(given_twice("max_age_seconds"));
            }
            conditions.max_age = max_age;
        }
        add(
            "clock_skew_seconds",
            &mut conditions.clock_skew_seconds,
            self.clock_skew,
        )?;
        match self.at {
            Some(At::Document) => conditions.time = ValidityTime::Document,
            Some(At::Now | At::Time(_)) => conditions.time = ValidityTime::Now,
            None => {}
        }
        Ok(conditions)
    }

    fn add_registers(&self, conditions: &mut Conditions) -> Result<(), CommandError> {
        // Two flags for one register are alternatives.
        let mut flags = BTreeMap::<u8, BTreeSet<Pcr>>::new();
        for pcr in &self.pcrs {
            let (index, pcr) = register(pcr)?;
            flags.entry(index).or_default().insert(pcr);
        }
        for (index, allowed) in flags {
            if conditions.pcrs.insert(index, allowed).is_some() {
                return Err(given_twice(&format!("PCR{index}")));
            }
        }
        let built = self
            .measurements
            .as_deref()
            .map(measurements::read)
            .transpose()?;
        conditions.sealed_config |= built.as_ref().is_some_and(|built| built.sealed_config);
        let measurements = built.map(|built| built.measurements);
        let certificate = self
            .signing_certificate
            .as_deref()
            .map(input::text)
            .transpose()?;
        add("measurements", &mut conditions.measurements, measurements)?;
        add("role_arn", &mut conditions.role_arn, self.role_arn.clone())?;
        add(
            "instance_id",
            &mut conditions.instance_id,
            self.instance_id.clone(),
        )?;
        add(
            "signing_certificate",
            &mut conditions.signing_certificate,
            certificate,
        )
    }
}

/// Sets a condition that the policy file does not set.
fn add<T>(name: &str, condition: &mut Option<T>, flag: Option<T>) -> Result<(), CommandError> {
    match (&condition, flag) {
        (_, None) => Ok(()),
        (Some(_), Some(_)) => Err(given_twice(name)),
        (None, flag) => {
            *condition = flag;
            Ok(())
        }
    }
}

fn given_twice(name: &str) -> CommandError {
    CommandError::new(
        format!("{name} is set by both the policy file and a flag"),
        "remove one of them",
    )
}

fn decoded(flag: &str, digits: Option<&str>) -> Result<Option<Vec<u8>>, CommandError> {
    digits.map(|digits| hexadecimal(flag, digits)).transpose()
}

pub(super) fn hexadecimal(flag: &str, digits: &str) -> Result<Vec<u8>, CommandError> {
    hex::decode(digits)
        .map_err(|e| CommandError::new(format!("{flag}: {e}"), "write it in hexadecimal"))
}

/// What the agent extends with the hash of the config that it opened.
const CONFIG_REGISTER: u8 = 16;

const ANY_CONFIG: &str = "the enclave opens a sealed config and this policy does not say which: \
    whoever may seal one chooses it; add PCR16, which `eif-builder seal` prints";

const ANY_KIND: &str = "this policy accepts documents of any AWS product, not of enclaves only";

/// Who else could present the document, if no nonce ties it to this verification and the user set
/// no greatest age.
fn replay(conditions: &Conditions) -> Option<String> {
    let window = match (&conditions.nonce, conditions.max_age) {
        (Some(_), _) | (None, MaxAge::Seconds(_)) => return None,
        (None, MaxAge::Default) => "5 minutes",
        (None, MaxAge::Certificate) => "three hours",
    };
    Some(format!(
        "no nonce: anyone who has seen this document can present it until it is {window} old"
    ))
}

fn max_age(text: &str) -> Result<MaxAge, String> {
    match text {
        "certificate" => Ok(MaxAge::Certificate),
        seconds => seconds
            .parse()
            .map(MaxAge::Seconds)
            .map_err(|e| format!("{e}; give seconds, or certificate")),
    }
}

/// What weakens the verdict, whatever it is.
fn cautions(policy: &Policy, at: At, root: Option<&Path>) -> Vec<String> {
    let mut cautions = Vec::new();
    if let Some(path) = root {
        cautions.push(format!(
            "{} is trusted instead of AWS's root",
            path.display()
        ));
    }
    if let At::Time(time) = at {
        cautions.push(format!(
            "this verdict is as of {time} (--at): an old document passes"
        ));
    }
    if !policy.fixes_code() {
        cautions.push(
            "this policy does not fix the code that runs; add PCR0 (or PCR8, or PCR1 and PCR2)"
                .to_owned(),
        );
    }
    cautions
}

fn register(text: &str) -> Result<(u8, Pcr), CommandError> {
    const HINT: &str = "write it like --pcr 0=3d2a… with 96 hexadecimal digits";
    let fail = |problem: &dyn std::fmt::Display| {
        CommandError::new(format!("--pcr {text}: {problem}"), HINT)
    };
    let (index, value) = text
        .split_once('=')
        .ok_or_else(|| fail(&"the = is missing"))?;
    Ok((
        index.parse().map_err(|e| fail(&e))?,
        value.parse().map_err(|e| fail(&e))?,
    ))
}

fn anchor(root: Option<&Path>) -> Result<TrustAnchor, CommandError> {
    let Some(path) = root else {
        return Ok(TrustAnchor::aws());
    };
    let fail = |problem: &dyn std::fmt::Display| {
        CommandError::new(
            format!("{}: {problem}", path.display()),
            "give a root certificate in PEM",
        )
    };
    let pem = input::text(path)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| fail(&e))?;
    TrustAnchor::from_der(&der).map_err(|e| fail(&e))
}

/// TOML or JSON, by the first character: a policy in TOML never starts with a brace.
fn policy_file(path: &Path) -> Result<Conditions, CommandError> {
    let text = input::text(path)?;
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        toml::from_str(&text).map_err(|e| e.to_string())
    };
    parsed.map_err(|e| {
        CommandError::new(
            format!("{}: {}", path.display(), e.trim_end()),
            "the documentation lists the keys of a policy",
        )
    })
}

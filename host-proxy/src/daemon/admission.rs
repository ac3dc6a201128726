//! Whether a request for an enclave makes sense. Pure: it looks at the request and at what the daemon is configured for.

use crate::sealed::{CheckedConfig, SealedConfigError};
use api::{CreateEnclave, EnclaveId, Provider, Record, SourceType};
use explain::{Code, Explain};
use oci::Reference;
use oci::reference::{ReferenceError, canonical_host};
use secrets::RegistryCredentials;
use std::borrow::Cow;
use wire::spec::{SpecError, SpecFile};

const MAX_NAME: usize = 63;

/// A request that makes sense, taken apart.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) name: String,
    pub(super) image: Reference,
    pub(super) provider: Provider,
    pub(super) debug: bool,
    pub(super) source_type: SourceType,
    pub(super) credentials: Option<RegistryCredentials>,
    pub(super) spec: SpecFile,
    pub(super) config: Option<CheckedConfig>,
}

/// Why a request makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It could be taken for an id or a path.
    #[error("a name is 1 to 63 lower-case letters, digits and '-' between them")]
    Name,
    /// It is no image reference.
    #[error(transparent)]
    Image(#[from] ReferenceError),
    /// `enclave.toml` is invalid.
    #[error("enclave.toml: {0}")]
    Spec(#[from] SpecError),
    /// The sealed config does not fit the spec.
    #[error(transparent)]
    Config(#[from] SealedConfigError),
    /// The credentials would go to another registry than the image's.
    #[error("the credentials are for {given}, but the image is on {image}")]
    OtherRegistry {
        /// What they are for.
        given: String,
        /// Where the image is.
        image: String,
    },
    /// One of user name and password is missing.
    #[error("a user name needs a password, and a password needs a user name")]
    HalfCredentials,
    /// `private-registry` without credentials.
    #[error("a private registry needs credentials")]
    NoCredentials,
    /// `configured-registry` with credentials.
    #[error("the configured registry issues its own credentials")]
    NeedlessCredentials,
    /// Debug mode is Nitro's.
    #[error("enclaves in QEMU have no debug mode")]
    Debug,
    /// `configured-registry`, and `[registry]` does not cover the image.
    #[error("[registry] of the daemon's configuration has no credentials for this image")]
    NotConfigured,
}

impl Explain for Rejected {
    fn code(&self) -> Code {
        Code::RequestInvalid
    }

    fn next_step(&self) -> Cow<'_, str> {
        match self {
            Rejected::Name => "Choose another name.".into(),
            Rejected::Image(_) => "Correct the image reference.".into(),
            Rejected::Spec(_) => "Correct enclave.toml.".into(),
            Rejected::Config(error) => error.next_step(),
            Rejected::OtherRegistry { .. } => {
                "Use the registry host of the image reference.".into()
            }
            Rejected::HalfCredentials => "Provide both.".into(),
            Rejected::NoCredentials => {
                "Use --registry-username and --registry-password-stdin.".into()
            }
            Rejected::NeedlessCredentials => "Leave them out, or leave --source-type out.".into(),
            Rejected::Debug => "Use aws-nitro, or leave --debug out.".into(),
            Rejected::NotConfigured => {
                "Check its host, and its prefix or namespace; or provide credentials.".into()
            }
        }
    }
}

/// Takes a request apart. `launcher` runs it if it names no provider. `is_configured` tells whether the daemon's own `[registry]` covers an image.
pub(super) fn admit(
    request: CreateEnclave,
    launcher: Provider,
    is_configured: impl FnOnce(&Reference) -> bool,
) -> Result<Admitted, Rejected> {
    let CreateEnclave {
        name,
        image,
        provider,
        debug,
        source_type,
        registry_url,
        registry_username,
        registry_password,
        spec,
        config,
    } = request;
    check_name(&name)?;
    let provider = provider.unwrap_or(launcher);
    if debug && provider == Provider::Qemu {
        return Err(Rejected::Debug);
    }
    let image = Reference::parse(&image)?;
    let spec = SpecFile::parse(spec)?;
    let config = CheckedConfig::check(&spec, config.as_deref())?;
    if let Some(url) = &registry_url {
        check_registry(url, &image)?;
    }
    let credentials = match (registry_username, registry_password) {
        (Some(username), Some(password)) => Some(RegistryCredentials { username, password }),
        (None, None) => None,
        _ => return Err(Rejected::HalfCredentials),
    };
    let source_type = source(source_type, credentials.is_some(), is_configured(&image))?;
    Ok(Admitted {
        name,
        image,
        provider,
        debug,
        source_type,
        credentials,
        spec,
        config,
    })
}

/// Another image for an enclave that exists: its credentials must be good for it, and must not go to a stranger.
pub(super) fn admit_image(
    text: &str,
    record: &Record,
    is_configured: impl FnOnce(&Reference) -> bool,
) -> Result<Reference, Rejected> {
    let image = Reference::parse(text)?;
    match record.source_type {
        SourceType::PrivateRegistry => check_registry(record.image.host(), &image)?,
        SourceType::ConfiguredRegistry if !is_configured(&image) => {
            return Err(Rejected::NotConfigured);
        }
        SourceType::ConfiguredRegistry | SourceType::PublicRegistry => {}
    }
    Ok(image)
}

fn check_name(name: &str) -> Result<(), Rejected> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && EnclaveId::try_from(name.to_owned()).is_err();
    if good { Ok(()) } else { Err(Rejected::Name) }
}

/// Where the credentials for the image come from: as the request specifies, or as its other fields imply.
fn source(
    wanted: Option<SourceType>,
    has_credentials: bool,
    is_configured: bool,
) -> Result<SourceType, Rejected> {
    match (wanted, has_credentials) {
        (Some(SourceType::PrivateRegistry), false) => Err(Rejected::NoCredentials),
        (Some(SourceType::ConfiguredRegistry), true) => Err(Rejected::NeedlessCredentials),
        (Some(SourceType::ConfiguredRegistry), false) if !is_configured => {
            Err(Rejected::NotConfigured)
        }
        (_, true) => Ok(SourceType::PrivateRegistry),
        (None | Some(SourceType::ConfiguredRegistry), false) if is_configured => {
            Ok(SourceType::ConfiguredRegistry)
        }
        (_, false) => Ok(SourceType::PublicRegistry),
    }
}

/// The credentials must belong to the image's registry, or they would go to a stranger.
fn check_registry(url: &str, image: &Reference) -> Result<(), Rejected> {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .unwrap_or(url);
    let host = host.split('/').next().unwrap_or(host);
    if canonical_host(host) == image.host() {
        return Ok(());
    }
    Err(Rejected::OtherRegistry {
        given: host.to_owned(),
        image: image.host().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_the_images_own_registry_only() {
        let reference = Reference::parse("registry-1.docker.io/my-org/app:v1").unwrap();
        for url in [
            "docker.io",
            "registry-1.docker.io",
            "https://index.docker.io/v1/",
        ] {
            assert!(check_registry(url, &reference).is_ok(), "{url}");
        }
        assert!(matches!(
            check_registry("ghcr.io", &reference),
            Err(Rejected::OtherRegistry { given, .. }) if given == "ghcr.io"
        ));
    }

    #[test]
    fn a_redeploy_takes_stored_credentials_to_no_other_registry() {
        let record = |source_type: &str| -> Record {
            let json = serde_json::json!({
                "id": "e-0123456789abcdef", "name": "a", "status": "DEPLOYED", "generation": 1, "provider": "qemu",
                "source_type": source_type, "image": "r.example/a:v1", "created_at": "T", "updated_at": "T",
            });
            serde_json::from_value(json).unwrap()
        };
        let admit = |source_type, image| admit_image(image, &record(source_type), |_| false);
        let image = admit("private-registry", "r.example/b:v2").unwrap();
        assert_eq!(image.to_string(), "r.example/b:v2");
        let refused = admit("private-registry", "s.example/a:v1");
        assert!(matches!(refused, Err(Rejected::OtherRegistry { .. })));
        assert!(admit("public-registry", "s.example/a:v1").is_ok());
        let refused = admit("configured-registry", "s.example/a:v1");
        assert!(matches!(refused, Err(Rejected::NotConfigured)));
    }

    #[test]
    fn a_request_says_where_credentials_come_from_or_leaves_it_open() {
        use SourceType::{ConfiguredRegistry, PrivateRegistry, PublicRegistry};
        assert_eq!(source(None, false, false).unwrap(), PublicRegistry);
        assert_eq!(source(None, false, true).unwrap(), ConfiguredRegistry);
        assert_eq!(
            source(Some(PublicRegistry), false, true).unwrap(),
            PublicRegistry
        );
        assert_eq!(source(None, true, true).unwrap(), PrivateRegistry);
        let configured = source(Some(ConfiguredRegistry), false, true).unwrap();
        assert_eq!(configured, ConfiguredRegistry);
        let refused = source(Some(ConfiguredRegistry), false, false);
        assert!(matches!(refused, Err(Rejected::NotConfigured)));
        let refused = source(Some(ConfiguredRegistry), true, true);
        assert!(matches!(refused, Err(Rejected::NeedlessCredentials)));
        let refused = source(Some(PrivateRegistry), false, true);
        assert!(matches!(refused, Err(Rejected::NoCredentials)));
    }

    #[test]
    fn a_name_cannot_be_taken_for_an_id_or_a_path() {
        assert!(check_name("my-app-2").is_ok());
        let long = "a".repeat(64);
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a/b",
            "..",
            "e-0123456789abcdef",
            &long,
        ] {
            assert!(matches!(check_name(bad), Err(Rejected::Name)), "{bad}");
        }
    }

    fn request(name: &str, image: &str, spec: &str) -> CreateEnclave {
        CreateEnclave {
            name: name.to_owned(),
            image: image.to_owned(),
            provider: None,
            debug: false,
            source_type: None,
            registry_url: None,
            registry_username: None,
            registry_password: None,
            spec: spec.to_owned(),
            config: None,
        }
    }

    fn try_admit(request: CreateEnclave) -> Result<Admitted, Rejected> {
        admit(request, Provider::Qemu, |_| false)
    }

    #[test]
    fn debug_mode_is_nitros() {
        let debug = |provider| {
            try_admit(CreateEnclave {
                provider,
                debug: true,
                ..request("app", "r.example/a:v1", "")
            })
        };
        assert!(debug(Some(Provider::AwsNitro)).unwrap().debug);
        for provider in [None, Some(Provider::Qemu)] {
            assert!(matches!(debug(provider), Err(Rejected::Debug)));
        }
    }

    #[test]
    fn what_is_admitted_is_parsed_once_and_for_all() {
        let admitted = try_admit(request("app", "r.example/a:v1", "name = 'n'")).unwrap();
        assert_eq!(admitted.image.to_string(), "r.example/a:v1");
        assert_eq!(admitted.spec.name.as_deref(), Some("n"));
        let rejected = try_admit(request("app", "r.example/a:v1", "nam = 'n'"));
        assert!(matches!(rejected, Err(Rejected::Spec(_))));
        let rejected = try_admit(request("app", "R E F", ""));
        assert!(matches!(rejected, Err(Rejected::Image(_))));
        let half = CreateEnclave {
            registry_username: Some("u".to_owned()),
            ..request("app", "r.example/a:v1", "")
        };
        assert!(matches!(try_admit(half), Err(Rejected::HalfCredentials)));
    }
}

//! Who asks: JSON Web Tokens (RFC 7519), by a shared secret or by the public keys of an issuer, and
//! which projects their bearers may ask for.
//!
//! The kind of key decides the algorithm, never the token: HS256 for the secret, and RS256, ES256
//! or EdDSA as the key set specifies.

use crate::config::BrokerConfig;
use crate::keys::{KeyError, KeyLookupError, Keys, algorithm_of};
use crate::rules::Rules;
use api::credentials::project::Project;
use explain::{Code, Explain};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use oci::https::Https;
use serde::Deserialize;

/// The longest token that is checked, in bytes; a request's head is limited to 16 KiB anyway.
const MAX_TOKEN: usize = 8 * 1024;
/// How far the issuer's clock may be off, in seconds.
const LEEWAY: u64 = 60;

/// Why a token is rejected. For the log: the caller gets a 401 without the reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it is longer than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("it is signed with an unknown key")]
    UnknownKey,
    #[error("the issuer's keys could not be fetched for too long")]
    NoKeys,
    #[error("it has critical headers, and none is supported")]
    Critical,
    #[error("its algorithm is not that of its key")]
    Algorithm,
    #[error("InvalidAudience: it is not for {expected:?}")]
    Audience { expected: String },
    #[error("InvalidIssuer: it is not from {expected:?}")]
    Issuer { expected: String },
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

impl Explain for TokenError {
    fn code(&self) -> Code {
        match self {
            TokenError::NoKeys => Code::ProviderUnavailable,
            _ => Code::TokenInvalid,
        }
    }

    fn is_retryable(&self) -> bool {
        matches!(self, TokenError::NoKeys)
    }
}

/// Who asks, and which projects they may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) subject: String,
    projects: Vec<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Names of projects, whole.
    #[serde(default)]
    projects: Vec<String>,
}

impl Caller {
    /// Whether there is nothing that they may ask for.
    pub(super) fn has_no_projects(&self) -> bool {
        self.projects.is_empty()
    }

    pub(super) fn is_allowed(&self, project: &Project) -> bool {
        self.projects.iter().any(|name| name == project.as_str())
    }
}

/// Checks tokens.
pub(super) struct Tokens {
    keys: Keys,
    audience: String,
    issuer: String,
    rules: Option<Rules>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    pub(super) async fn new(config: &BrokerConfig, https: &Https) -> Result<Tokens, KeyError> {
        let BrokerConfig {
            audience,
            issuer,
            rules_file,
            ..
        } = config;
        if audience.is_empty() {
            return Err(KeyError::NoAudience);
        }
        let keys = Keys::open(config, https).await?;
        let rules = Rules::open(rules_file)?;
        Ok(Tokens {
            keys,
            audience: audience.clone(),
            issuer: issuer.clone(),
            rules,
        })
    }

    /// Who the bearer of a token is. May wait for the issuer's keys, 5 seconds at most.
    pub(super) async fn caller(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let header = decode_header(token)?;
        // None of them is supported (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let claims = match &self.keys {
            Keys::Secret(file) => self.claims(token, &file.key(), Algorithm::HS256)?,
            Keys::Set(set) => {
                let kid = header.kid;
                let jwk = set
                    .find(kid.as_deref())
                    .await
                    .map_err(|error| match error {
                        KeyLookupError::Unknown => TokenError::UnknownKey,
                        KeyLookupError::Unreachable => TokenError::NoKeys,
                    })?;
                let algorithm = algorithm_of(&jwk).ok_or(TokenError::Algorithm)?;
                self.claims(token, &DecodingKey::from_jwk(&jwk)?, algorithm)?
            }
        };
        let Claims {
            sub: subject,
            mut projects,
        } = claims;
        projects.extend(
            self.rules
                .iter()
                .flat_map(|rules| rules.projects_of(&subject)),
        );
        Ok(Caller { subject, projects })
    }

    fn claims(
        &self,
        token: &str,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        decode(token, key, &validation)
            .map(|token| token.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidAudience => TokenError::Audience {
                    expected: self.audience.clone(),
                },
                ErrorKind::InvalidIssuer => TokenError::Issuer {
                    expected: self.issuer.clone(),
                },
                _ => error.into(),
            })
    }
}

#[cfg(test)]
mod tests;

//! The places where people keep registry credentials: Docker's `config.json`, podman's `auth.json`,
//! and credential helpers, each read as its own documentation says.

mod helper;

pub use helper::{erase, store};

use crate::error::PullError;
use crate::host::{DOCKER_HUB, canonical_host};
use crate::reference::Reference;
use crate::secret::{Credentials, Secret};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// The longest credentials file, in bytes.
const MAX_FILE: usize = 1024 * 1024;

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct AuthEntry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

/// Looks a registry up in a Docker or podman credentials file. Order as in docker's CLI: the
/// registry's own helper, the default store, then what stands in the file. `None` where none of
/// them knows the registry.
///
/// May run a credential helper, `docker-credential-NAME` on the `PATH`, for at most 30 seconds
/// each. Cancel-safe: a helper that runs is killed.
///
/// # Errors
/// [`PullError::Credentials`]: the file cannot be read, is longer than 1 MiB or is no such file, or
/// the helper fails.
pub async fn from_auth_file(
    path: &Path,
    reference: &Reference,
) -> Result<Option<Credentials>, PullError> {
    let error = |problem: String| PullError::Credentials(format!("{}: {problem}", path.display()));
    let bytes = Zeroizing::new(
        tokio::fs::read(path)
            .await
            .map_err(|e| error(e.to_string()))?,
    );
    if bytes.len() > MAX_FILE {
        return Err(error(format!("it is longer than {MAX_FILE} bytes")));
    }
    // serde_json's own message could quote the file; the position is enough to find the mistake.
    let file: AuthFile = serde_json::from_slice(&bytes).map_err(|e| {
        error(format!(
            "not a docker config.json (line {}, column {})",
            e.line(),
            e.column()
        ))
    })?;

    let own = file
        .cred_helpers
        .iter()
        .find(|(key, _)| names_host(key, reference.host()));
    if let Some((key, name)) = own {
        return helper::get(name, key).await;
    }
    if let Some(store) = &file.creds_store {
        let server = match reference.host() {
            DOCKER_HUB => "https://index.docker.io/v1/",
            host => host,
        };
        if let Some(credentials) = helper::get(store, server).await? {
            return Ok(Some(credentials));
        }
    }
    match best_entry(file.auths, reference) {
        Some(entry) => entry.credentials().map_err(error),
        None => Ok(None),
    }
}

/// Whether a key of a credentials file is the registry `host`: Docker writes some with a scheme or
/// a path.
fn names_host(key: &str, host: &str) -> bool {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    canonical_host(key.split('/').next().unwrap_or(key)) == host
}

/// podman allows `host/namespace/repository` keys: the longest that fits wins.
fn best_entry(auths: BTreeMap<String, AuthEntry>, reference: &Reference) -> Option<AuthEntry> {
    let full = format!("{}/{}", reference.host(), reference.repository());
    let fits = |key: &str| match key.split_once('/') {
        Some((host, path))
            if !key.contains("://") && path != "v1/" && path != "v2/" && !path.is_empty() =>
        {
            let key = format!("{}/{path}", canonical_host(host));
            full == key || full.starts_with(&format!("{key}/"))
        }
        _ => names_host(key, reference.host()),
    };
    auths
        .into_iter()
        .filter(|(key, _)| fits(key))
        .max_by_key(|(key, _)| key.len())
        .map(|(_, entry)| entry)
}

impl AuthEntry {
    fn credentials(self) -> Result<Option<Credentials>, String> {
        let AuthEntry {
            auth,
            username,
            password,
            identitytoken,
        } = self;
        if let Some(token) = identitytoken.filter(|token| !token.expose().is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let (Some(username), Some(password)) = (username, password) {
            return Ok(Some(Credentials::Password { username, password }));
        }
        let Some(auth) = auth.filter(|auth| !auth.expose().is_empty()) else {
            return Ok(None);
        };
        let bad = || "an 'auth' entry is not base64 of user:password".to_owned();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(auth.expose())
            .map_err(|_| bad())?;
        let text = Zeroizing::new(String::from_utf8(bytes).map_err(|_| bad())?);
        // Only the first ':' separates: Google's JSON keys hold more.
        let (username, password) = text.split_once(':').ok_or_else(bad)?;
        let password = Secret::new(password.trim_end_matches('\0'));
        Ok(Some(Credentials::Password {
            username: username.to_owned(),
            password,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(json: &str, reference: &str) -> Result<Option<Credentials>, String> {
        let file: AuthFile = serde_json::from_str(json).unwrap();
        best_entry(file.auths, &Reference::parse(reference).unwrap())
            .map_or(Ok(None), AuthEntry::credentials)
    }

    fn password(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            username: username.into(),
            password: Secret::new(password),
        })
    }

    #[test]
    fn docker_hubs_names_are_one_entry() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
        for reference in ["alpine", "docker.io/a/b", "registry-1.docker.io/a/b"] {
            assert_eq!(
                lookup(json, reference),
                Ok(password("u", "p")),
                "{reference}"
            );
        }
        assert_eq!(lookup(json, "r.example/a"), Ok(None));
    }

    #[test]
    fn the_longest_podman_key_wins() {
        let json = r#"{"auths":{
            "r.example":{"username":"a","password":"1"},
            "r.example/org":{"username":"b","password":"2"},
            "r.example/org/app":{"username":"c","password":"3"}}}"#;
        assert_eq!(lookup(json, "r.example/x"), Ok(password("a", "1")));
        assert_eq!(lookup(json, "r.example/org/other"), Ok(password("b", "2")));
        assert_eq!(lookup(json, "r.example/org/app:v1"), Ok(password("c", "3")));
        assert_eq!(lookup(json, "r.example/org/apple"), Ok(password("b", "2")));
        assert_eq!(lookup(json, "r.example.evil.example/org/app"), Ok(None));
    }

    #[test]
    fn only_the_first_colon_separates() {
        // "_json_key:{\"a\":1}"
        let json = r#"{"auths":{"gcr.io":{"auth":"X2pzb25fa2V5OnsiYSI6MX0="}}}"#;
        assert_eq!(
            lookup(json, "gcr.io/p/i"),
            Ok(password("_json_key", r#"{"a":1}"#))
        );
    }
}

//! Registry credentials: a secret type that cannot be printed, and the places that people keep credentials in.
//! Docker's `config.json`, podman's `auth.json` and credential helpers are read as their owners document them.

use super::PullError;
use super::reference::{DOCKER_HUB, Reference, canonical_host};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// A string that is wiped when dropped and has no way into a log: `Debug` prints `…`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The only way to the text. Whoever calls it answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        username: String,
        password: Secret,
    },
    /// An OAuth2 refresh token, as `docker login` keeps for Azure.
    IdentityToken(Secret),
}

impl Credentials {
    /// The value of a Basic `Authorization` header (RFC 7617).
    pub(crate) fn basic(username: &str, password: &Secret) -> Secret {
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        Secret::new(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())
        ))
    }
}

/// The longest credentials file, in bytes.
const MAX_FILE: usize = 1024 * 1024;
/// The longest answer of a credential helper, in bytes.
const MAX_HELPER_OUTPUT: u64 = 64 * 1024;
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

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

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// Looks a registry up in a Docker or podman credentials file. Order as in docker's CLI: the registry's own helper, the
/// default store, then what stands in the file. `None` where none of them knows the registry.
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

    let helper = file
        .cred_helpers
        .iter()
        .find(|(key, _)| names_host(key, reference.host()));
    if let Some((key, helper)) = helper {
        return ask_helper(helper, key).await;
    }
    if let Some(store) = &file.creds_store {
        let server = match reference.host() {
            DOCKER_HUB => "https://index.docker.io/v1/",
            host => host,
        };
        if let Some(credentials) = ask_helper(store, server).await? {
            return Ok(Some(credentials));
        }
    }
    match best_entry(file.auths, reference) {
        Some(entry) => entry.credentials().map_err(error),
        None => Ok(None),
    }
}

/// Whether a key of a credentials file is the registry `host`: Docker writes some with a scheme or a path.
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

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

/// `docker-credential-NAME get`, the server on standard input.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, PullError> {
    let Ran {
        program,
        is_success,
        output,
    } = run_helper(name, "get", server.as_bytes()).await?;
    let error = |problem: &str| PullError::Credentials(format!("{program}: {problem}"));
    if !is_success {
        // The one failure that means "not known": docker-credential-helpers, credentials.NewErrCredentialsNotFound.
        let unknown = String::from_utf8_lossy(&output).contains("credentials not found");
        return if unknown {
            Ok(None)
        } else {
            Err(error("it failed"))
        };
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output).map_err(|_| error("its answer is not a credential"))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password {
            username: answer.username,
            password: answer.secret,
        },
    }))
}

/// `docker-credential-NAME store`: gives credentials to the helper that keeps them on this machine.
pub async fn store(
    name: &str,
    server: &str,
    username: &str,
    secret: &Secret,
) -> Result<(), PullError> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Stored<'a> {
        #[serde(rename = "ServerURL")]
        server_url: &'a str,
        username: &'a str,
        secret: &'a str,
    }
    let stored = Stored {
        server_url: server,
        username,
        secret: secret.expose(),
    };
    let input = serde_json::to_vec(&stored).map(Zeroizing::new);
    let input = input.map_err(|e| PullError::Credentials(e.to_string()))?;
    let Ran {
        program,
        is_success,
        ..
    } = run_helper(name, "store", &input).await?;
    match is_success {
        true => Ok(()),
        false => Err(PullError::Credentials(format!(
            "{program}: it did not take the credentials"
        ))),
    }
}

/// `docker-credential-NAME erase`: what the helper keeps for a server goes.
pub async fn erase(name: &str, server: &str) -> Result<(), PullError> {
    let Ran {
        program,
        is_success,
        ..
    } = run_helper(name, "erase", server.as_bytes()).await?;
    match is_success {
        true => Ok(()),
        false => Err(PullError::Credentials(format!(
            "{program}: it erased nothing"
        ))),
    }
}

/// What a helper did. What it printed may hold a secret: errors name the helper, never its output.
struct Ran {
    program: String,
    is_success: bool,
    output: Zeroizing<Vec<u8>>,
}

/// docker's credential-helper protocol.
async fn run_helper(name: &str, verb: &str, input: &[u8]) -> Result<Ran, PullError> {
    let program = format!("docker-credential-{name}");
    let error = |problem: &str| PullError::Credentials(format!("{program}: {problem}"));
    if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return Err(error(
            "the name of a credential helper has letters, digits, '.', '_' and '-' only",
        ));
    }
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may answer without reading to the end.
            match stdin.write_all(input).await {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let mut output = Zeroizing::new(Vec::new());
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_HELPER_OUTPUT)
                .read_to_end(&mut output)
                .await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = tokio::time::timeout(HELPER_TIMEOUT, run)
        .await
        .map_err(|_| error("no answer within 30 seconds"))?
        .map_err(|e| error(&format!("cannot run it: {e}")))?;
    Ok(Ran {
        is_success: status.success(),
        output,
        program,
    })
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
    fn a_secret_cannot_be_printed() {
        let credentials = password("user", "hunter2");
        assert!(!format!("{credentials:?}").contains("hunter2"));
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

    #[tokio::test]
    async fn helper_names_cannot_leave_the_path() {
        let error = ask_helper("../../bin/sh", "r.example").await.unwrap_err();
        assert!(matches!(error, PullError::Credentials(_)));
    }
}

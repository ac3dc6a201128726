//! Docker's credential helpers: programs named `docker-credential-NAME` that keep credentials for
//! others.

use crate::error::PullError;
use crate::secret::{Credentials, Secret};
use serde::Deserialize;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest answer of a credential helper, in bytes.
const MAX_HELPER_OUTPUT: u64 = 64 * 1024;
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

/// Asks `docker-credential-NAME get` for a server's credentials; `None` where the helper has none.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credentials>, PullError> {
    let HelperOutput {
        program,
        is_success,
        output,
    } = run_helper(name, "get", server.as_bytes()).await?;
    let error = |problem: &str| PullError::Credentials(format!("{program}: {problem}"));
    if !is_success {
        // The one failure that means "not known": docker-credential-helpers,
        // credentials.NewErrCredentialsNotFound.
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

/// Gives credentials to the helper that keeps them on this machine: `docker-credential-NAME store`.
/// `server` is what docker calls the registry there, a host or a URL.
///
/// Runs for at most 30 seconds. Cancel-safe: the helper is killed.
///
/// # Errors
/// [`PullError::Credentials`]: the name is none, or the helper cannot be run, fails or is too slow.
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
    let HelperOutput {
        program,
        is_success,
        ..
    } = run_helper(name, "store", &input).await?;
    if is_success {
        Ok(())
    } else {
        Err(PullError::Credentials(format!(
            "{program}: it did not store the credentials"
        )))
    }
}

/// Has the helper delete what it keeps for a server: `docker-credential-NAME erase`.
///
/// Runs for at most 30 seconds. Cancel-safe: the helper is killed.
///
/// # Errors
/// [`PullError::Credentials`]: the name is none, or the helper cannot be run, fails or is too slow.
pub async fn erase(name: &str, server: &str) -> Result<(), PullError> {
    let HelperOutput {
        program,
        is_success,
        ..
    } = run_helper(name, "erase", server.as_bytes()).await?;
    if is_success {
        Ok(())
    } else {
        Err(PullError::Credentials(format!(
            "{program}: it did not erase the credentials"
        )))
    }
}

/// What a helper did. What it printed may hold a secret: errors name the helper, never its output.
struct HelperOutput {
    program: String,
    is_success: bool,
    output: Zeroizing<Vec<u8>>,
}

/// Runs a helper by docker's protocol (docker-credential-helpers, README): a verb as the argument,
/// the input on standard input, the answer on standard output.
async fn run_helper(name: &str, verb: &str, input: &[u8]) -> Result<HelperOutput, PullError> {
    let program = format!("docker-credential-{name}");
    let error = |problem: &str| PullError::Credentials(format!("{program}: {problem}"));
    if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return Err(error(
            "the name of a credential helper consists of letters, digits, '.', '_' and '-'",
        ));
    }
    let (status, output) = timeout(HELPER_TIMEOUT, talk(&program, verb, input))
        .await
        .map_err(|_| error("no answer within 30 seconds"))?
        .map_err(|e| error(&format!("cannot run it: {e}")))?;
    Ok(HelperOutput {
        is_success: status.success(),
        output,
        program,
    })
}

async fn talk(
    program: &str,
    verb: &str,
    input: &[u8],
) -> io::Result<(ExitStatus, Zeroizing<Vec<u8>>)> {
    let mut child = tokio::process::Command::new(program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may answer without reading to the end.
        match stdin.write_all(input).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
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
    Ok((child.wait().await?, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn helper_names_cannot_leave_the_path() {
        let error = get("../../bin/sh", "r.example").await.unwrap_err();
        assert!(matches!(error, PullError::Credentials(_)));
    }
}

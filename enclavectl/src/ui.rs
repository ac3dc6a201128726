//! The terminal: results go to standard output, prose and prompts to standard error. Also the path
//! of an enclave in the API, which is the one place where what a person typed becomes part of a
//! request.

use explain::{CliError, Exit};
use oci::Secret;
use serde::Serialize;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use zeroize::Zeroizing;

/// The longest password that is read from standard input, in bytes.
const MAX_PASSWORD: u64 = 64 * 1024;
/// The longest answer to a prompt, in bytes.
const MAX_LINE: u64 = 4096;

/// One line of a result.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// A part of a result, as it is.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|e| {
        CliError::new(
            Exit::Unavailable,
            format!("cannot write to standard output: {e}"),
            "Check the program or file that the output goes to.",
        )
    })
}

/// A result as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    print(&serde_json::to_string_pretty(value).map_err(CliError::bug)?)
}

/// One line of prose. If nothing reads standard error, there is no place to report that.
pub(crate) fn tell(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// The API's path of an enclave. A name that could change the path is refused.
pub(crate) fn path(name: &str, rest: &str) -> Result<String, CliError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !name.is_empty() && name.bytes().all(is_plain) {
        Ok(format!("/v1/enclaves/{name}{rest}"))
    } else {
        Err(CliError::new(
            Exit::Usage,
            format!("'{name}' is neither a name nor an id"),
            "List the enclaves with 'enclavectl list'.",
        ))
    }
}

/// The value of a flag, or the answer to a prompt if there is a terminal.
pub(crate) fn flag_or_ask(
    value: Option<String>,
    flag: &str,
    question: &str,
) -> Result<String, CliError> {
    match value {
        Some(text) => Ok(text),
        None if std::io::stdin().is_terminal() => ask(question),
        None => Err(CliError::new(
            Exit::Usage,
            format!("{flag} is missing"),
            "Add it, or run this in a terminal to be prompted.",
        )),
    }
}

/// The answer to a prompt, without spaces around it.
pub(crate) fn ask(question: &str) -> Result<String, CliError> {
    let failed = |e: std::io::Error| CliError::new(Exit::Usage, e, "Use flags instead of prompts.");
    let mut stderr = std::io::stderr();
    write!(stderr, "{question}: ")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut line = String::new();
    let mut stdin = std::io::stdin().lock().take(MAX_LINE);
    stdin.read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}

/// A password from standard input if it is piped in and `from_stdin` allows it, or else from a
/// prompt without echo.
pub(crate) fn ask_password(from_stdin: bool) -> Result<Secret, CliError> {
    let wrong = |message: String| {
        CliError::new(
            Exit::Usage,
            message,
            "Pipe the password into standard input.",
        )
    };
    let is_terminal = std::io::stdin().is_terminal();
    let read = if is_terminal {
        rpassword::prompt_password("Password or access token: ").map(Zeroizing::new)
    } else if from_stdin {
        let mut text = Zeroizing::new(String::new());
        let mut stdin = std::io::stdin().take(MAX_PASSWORD);
        stdin.read_to_string(&mut text).map(|_| text)
    } else {
        return Err(CliError::new(
            Exit::Usage,
            "the password is missing",
            "Pipe it into standard input and add --registry-password-stdin.",
        ));
    };
    let text = read.map_err(|e| wrong(format!("cannot read the password: {e}")))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(wrong("the password is empty".to_owned())),
        password => Ok(Secret::new(password)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(
            path("e-0123456789abcdef", "/events?follow"),
            Ok("/v1/enclaves/e-0123456789abcdef/events?follow".to_owned())
        );
        for bad in [
            "",
            "../../healthz",
            "a/b",
            "a?b",
            "a%2fb",
            "a b",
            "ä",
            "a\n",
        ] {
            let error = path(bad, "").unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{bad}");
            assert!(
                error.message.ends_with("is neither a name nor an id"),
                "{bad}"
            );
        }
    }
}

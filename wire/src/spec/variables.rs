//! Which environment variables a sealed config may set, and which of them steer programs.

use super::error::{InvalidValue, SpecError};

/// The most names in `config.variables`.
pub const MAX_VARIABLES: usize = 256;

/// Variables that a loader, a shell or an interpreter obeys before the program's own first line, or
/// that decide whom it trusts and where it connects. A `*` at either end stands for any characters.
///
/// Sources: ld.so(8), "Secure-execution mode", and glibc's sysdeps/generic/unsecvars.h; sudo's
/// `initial_badenv_table` (plugins/sudoers/env.c); bash(1), perlrun(1), ruby(1), and the
/// environment sections of the manuals of Python, Node.js, the JDK, PHP, Lua, Erlang, .NET, R, Git,
/// curl and OpenSSL.
const STEERING: [(&str, &str); 63] = [
    ("LD_*", LOADER),
    ("DYLD_*", LOADER),
    ("_RLD*", LOADER),
    ("GLIBC_TUNABLES", LOADER),
    ("GCONV_PATH", LOADER),
    ("GETCONF_DIR", LOADER),
    ("LOCPATH", LOADER),
    ("NLSPATH", LOADER),
    ("MALLOC_*", LOADER),
    ("TMPDIR", "where programs write files"),
    ("TZDIR", LOADER),
    ("TERMINFO*", LOADER),
    ("TERMCAP", LOADER),
    ("PATH", "which programs are found"),
    ("HOME", "which configuration files are read"),
    ("XDG_*", "which configuration files are read"),
    ("SHELL", SHELL),
    ("ENV", SHELL),
    ("IFS", SHELL),
    ("PS4", SHELL),
    ("CDPATH", SHELL),
    ("FPATH", SHELL),
    ("ZDOTDIR", SHELL),
    ("GLOBIGNORE", SHELL),
    ("PROMPT_COMMAND", SHELL),
    ("SHELLOPTS", SHELL),
    ("BASH*", SHELL),
    ("EDITOR", "which programs are started"),
    ("VISUAL", "which programs are started"),
    ("*PAGER", "which programs are started"),
    ("GIT_*", "which programs are started"),
    ("*_OPTIONS", INTERPRETER),
    ("*_OPTS", INTERPRETER),
    ("CLASSPATH", INTERPRETER),
    ("JAVA_*", INTERPRETER),
    ("JDK_*", INTERPRETER),
    ("NODE_*", INTERPRETER),
    ("PYTHON*", INTERPRETER),
    ("PERL*", INTERPRETER),
    ("RUBY*", INTERPRETER),
    ("GEM_*", INTERPRETER),
    ("BUNDLE_*", INTERPRETER),
    ("PHP*", INTERPRETER),
    ("LUA_*", INTERPRETER),
    ("ERL_*", INTERPRETER),
    ("ELIXIR_*", INTERPRETER),
    ("GODEBUG", INTERPRETER),
    ("R_*", INTERPRETER),
    ("DOTNET_*", INTERPRETER),
    ("CORECLR_*", INTERPRETER),
    ("COR_*", INTERPRETER),
    ("COMPLUS_*", INTERPRETER),
    ("GUILE_*", INTERPRETER),
    ("*_PROXY", NETWORK),
    ("HOSTALIASES", NETWORK),
    ("LOCALDOMAIN", NETWORK),
    ("RESOLV_*", NETWORK),
    ("NIS_PATH", NETWORK),
    ("SSL_CERT_*", TRUST),
    ("*_CA_BUNDLE", TRUST),
    ("*_CA_CERTS", TRUST),
    ("SSLKEYLOGFILE", TRUST),
    ("OPENSSL_*", TRUST),
];

const LOADER: &str = "the dynamic loader or the C library";
const SHELL: &str = "shells";
const INTERPRETER: &str = "an interpreter or runtime";
const NETWORK: &str = "where programs connect";
const TRUST: &str = "whom TLS trusts, or what it keeps secret";

/// What a variable of this name steers, if it is one that makes input into code. Upper and lower
/// case are the same: `http_proxy` and `HTTP_PROXY` both count.
///
/// ```
/// use wire::spec::steers;
///
/// assert_eq!(steers("LD_PRELOAD"), Some("the dynamic loader or the C library"));
/// assert!(steers("https_proxy").is_some());
/// assert_eq!(steers("DATABASE_URL"), None);
/// ```
pub fn steers(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    let matches = |pattern: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (_, Some(start)) => name.starts_with(start),
        _ => name == pattern,
    };
    STEERING
        .iter()
        .find_map(|(pattern, what)| matches(pattern).then_some(*what))
}

/// Whether a process can have a variable of this name: ASCII letters, digits and `_`.
pub(crate) fn is_variable_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && name.bytes().all(plain)
}

/// A config sets the variables that the spec names, and none that the spec itself sets.
/// `environment` is whether it becomes an environment at all: a file sets none.
pub(super) fn check(
    variables: &[String],
    environment: bool,
    env: &[String],
) -> Result<(), SpecError> {
    let bad = |problem: InvalidValue| Err(problem.of("config.variables"));
    if environment && variables.is_empty() {
        return bad(InvalidValue::VariablesMissing);
    }
    if !environment && !variables.is_empty() {
        return bad(InvalidValue::VariablesOfFile);
    }
    if variables.len() > MAX_VARIABLES {
        return bad(InvalidValue::TooMany {
            count: variables.len(),
            limit: MAX_VARIABLES,
        });
    }
    for (name, earlier) in variables.iter().zip(0..) {
        if !is_variable_name(name) {
            return bad(InvalidValue::VariableName(name.clone()));
        }
        if variables.iter().take(earlier).any(|known| known == name) {
            return bad(InvalidValue::Repeated(name.clone()));
        }
        let own = |entry: &String| entry.split_once('=').is_some_and(|(own, _)| own == name);
        if env.iter().any(own) {
            return bad(InvalidValue::VariableTaken(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_make_input_into_code_are_known() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "GCONV_PATH",
            "GLIBC_TUNABLES",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PATH",
            "HOME",
            "NODE_OPTIONS",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "CATALINA_OPTS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "https_proxy",
            "ALL_PROXY",
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "OPENSSL_CONF",
            "GIT_SSH_COMMAND",
            "DOTNET_STARTUP_HOOKS",
        ] {
            assert!(steers(name).is_some(), "{name}");
        }
        for name in ["TOKEN", "DATABASE_URL", "PATHS", "ENVIRONMENT", "HOME_PAGE"] {
            assert_eq!(steers(name), None, "{name}");
        }
    }

    #[test]
    fn every_variable_of_a_config_is_named_once_and_by_no_one_else() {
        let check = |names: &[&str], environment: bool| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            super::check(&names, environment, &["A=1".to_owned(), "B=".to_owned()])
        };
        let bad = |problem: InvalidValue| Err(problem.of("config.variables"));
        assert_eq!(check(&["TOKEN", "AA", "LD_PRELOAD"], true), Ok(()));
        assert_eq!(check(&[], false), Ok(()));
        assert_eq!(check(&[], true), bad(InvalidValue::VariablesMissing));
        assert_eq!(check(&["T"], false), bad(InvalidValue::VariablesOfFile));
        for name in ["", "A B", "LD_*", "*", "A=B", "É"] {
            let problem = InvalidValue::VariableName(name.to_owned());
            assert_eq!(check(&[name], true), bad(problem));
        }
        for name in ["A", "B"] {
            let problem = InvalidValue::VariableTaken(name.to_owned());
            assert_eq!(check(&["T", name], true), bad(problem));
        }
        let twice = InvalidValue::Repeated("T".to_owned());
        assert_eq!(check(&["T", "U", "T"], true), bad(twice));
        let many: Vec<String> = (0..=MAX_VARIABLES).map(|n| format!("V{n}")).collect();
        let at_most = many.get(..MAX_VARIABLES).unwrap();
        assert_eq!(super::check(at_most, true, &[]), Ok(()));
        let (count, limit) = (MAX_VARIABLES + 1, MAX_VARIABLES);
        assert_eq!(
            super::check(&many, true, &[]),
            bad(InvalidValue::TooMany { count, limit })
        );
    }
}

//! A config that is delivered as environment variables.

use crate::spec::is_variable_name;

/// Reads a config that becomes an environment: `NAME=value` lines; blank lines and those that start
/// with `#` are ignored. Values are taken as they are: no quotes, no escapes, no comments behind
/// them. Only the variables in `allowed`, the spec's `config.variables`, may be set; not all of them
/// must be.
///
/// ```
/// let allowed = ["PASSWORD".to_owned()];
/// let config = "# for the database\nPASSWORD=it's # here\n";
/// let variables = wire::sealed::environment(config, &allowed)?;
/// assert_eq!(variables, [("PASSWORD", "it's # here")]);
/// assert!(wire::sealed::environment("LD_PRELOAD=/tmp/x.so", &allowed).is_err());
/// # Ok::<(), wire::sealed::EnvironmentError>(())
/// ```
///
/// # Errors
/// The first line that is not of this form, by its number and never with its text: it may hold a
/// secret.
pub fn environment<'a>(
    config: &'a str,
    allowed: &[String],
) -> Result<Vec<(&'a str, &'a str)>, EnvironmentError> {
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for (line, text) in (1..).zip(config.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) = variable(text, &variables, allowed)
            .map_err(|problem| EnvironmentError { line, problem })?;
        variables.push((name, value));
    }
    Ok(variables)
}

fn variable<'a>(
    text: &'a str,
    earlier: &[(&str, &str)],
    allowed: &[String],
) -> Result<(&'a str, &'a str), InvalidLine> {
    let (name, value) = text.split_once('=').ok_or(InvalidLine::NoEqualsSign)?;
    if !is_variable_name(name) {
        return Err(InvalidLine::Name);
    }
    if value.contains('\0') {
        return Err(InvalidLine::NulByte);
    }
    if earlier.iter().any(|(known, _)| *known == name) {
        return Err(InvalidLine::Repeated);
    }
    if !allowed.iter().any(|allowed| allowed == name) {
        return Err(InvalidLine::NotAllowed);
    }
    Ok((name, value))
}

/// Why a config cannot become an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the config {problem}")]
pub struct EnvironmentError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: InvalidLine,
}

/// What is wrong with a line of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLine {
    /// Neither `NAME=value` nor blank nor a comment.
    #[error("has no =")]
    NoEqualsSign,
    /// What stands before the `=` is not letters, digits and `_`.
    #[error("does not start with a variable name")]
    Name,
    /// A variable of a process cannot hold one.
    #[error("has a NUL byte")]
    NulByte,
    /// An earlier line sets the same variable.
    #[error("sets a variable that an earlier line sets")]
    Repeated,
    /// The spec does not let a config set this variable.
    #[error("sets a variable that config.variables of the spec does not name")]
    NotAllowed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_environments_and_never_quotes_them() {
        let allowed = ["A", "B_2", "C", "D"].map(str::to_owned);
        let environment = |config| super::environment(config, &allowed);
        let read = environment("# comment\nA=1\n\nB_2=x=y # not a comment\nC=").unwrap();
        assert_eq!(
            read,
            [("A", "1"), ("B_2", "x=y # not a comment"), ("C", "")]
        );
        for (text, line, problem) in [
            ("A=1\nsecret", 2, InvalidLine::NoEqualsSign),
            ("=x", 1, InvalidLine::Name),
            ("export A=x", 1, InvalidLine::Name),
            ("A=1\nA=2", 2, InvalidLine::Repeated),
            ("A=\0", 1, InvalidLine::NulByte),
            ("A=1\n# x\nLD_PRELOAD=x", 3, InvalidLine::NotAllowed),
            ("a=1", 1, InvalidLine::NotAllowed),
            ("A =1", 1, InvalidLine::Name),
        ] {
            assert_eq!(
                environment(text),
                Err(EnvironmentError { line, problem }),
                "{text:?}"
            );
        }
    }
}

//! A config that is delivered as environment variables.

/// Reads a config that becomes an environment: `NAME=value` lines; blank lines and those that start
/// with `#` are ignored. Values are taken as they are: no quotes, no escapes, no comments behind
/// them.
///
/// ```
/// let variables = wire::sealed::environment("# for the database\nPASSWORD=it's # here\n")?;
/// assert_eq!(variables, [("PASSWORD", "it's # here")]);
/// # Ok::<(), wire::sealed::EnvironmentError>(())
/// ```
///
/// # Errors
/// The first line that is not of this form, by its number and never with its text: it may hold a
/// secret.
pub fn environment(config: &str) -> Result<Vec<(&str, &str)>, EnvironmentError> {
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for (line, text) in (1..).zip(config.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, value) =
            variable(text, &variables).map_err(|problem| EnvironmentError { line, problem })?;
        variables.push((name, value));
    }
    Ok(variables)
}

fn variable<'a>(
    text: &'a str,
    earlier: &[(&str, &str)],
) -> Result<(&'a str, &'a str), InvalidLine> {
    let (name, value) = text.split_once('=').ok_or(InvalidLine::NoEqualsSign)?;
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(InvalidLine::Name);
    }
    if value.contains('\0') {
        return Err(InvalidLine::NulByte);
    }
    if earlier.iter().any(|(known, _)| *known == name) {
        return Err(InvalidLine::Repeated);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_environments_and_never_quotes_them() {
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
        ] {
            assert_eq!(
                environment(text),
                Err(EnvironmentError { line, problem }),
                "{text:?}"
            );
        }
    }
}

//! How a command line ends that did not do what it was asked: in words, with the next step, and
//! with an exit code.

use crate::{Exit, Explain, printable};

/// A failure as a terminal shows it. Made from any error that implements [`Explain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
    /// How the command ends.
    pub exit: Exit,
}

impl CliError {
    /// For what has no error type of its own: a wrong flag, a file that cannot be written.
    pub fn new(
        exit: Exit,
        message: impl std::fmt::Display,
        next_step: impl Into<String>,
    ) -> CliError {
        CliError {
            message: message.to_string(),
            next_step: next_step.into(),
            exit,
        }
    }

    /// A defect of ours.
    pub fn bug(error: impl std::fmt::Display) -> CliError {
        CliError::new(Exit::Bug, error, "This is a bug; please report it.")
    }
}

impl<E: Explain> From<E> for CliError {
    fn from(error: E) -> CliError {
        CliError::new(error.class().exit(), &error, error.next_step())
    }
}

/// Two lines: `error: MESSAGE`, and the next step indented below it. Nothing in it can steer a
/// terminal.
impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.message.lines().map(printable).collect();
        write!(
            f,
            "error: {}\n  {}",
            lines.join("\n"),
            printable(&self.next_step)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Code};

    #[derive(Debug, thiserror::Error)]
    #[error("the registry said \u{1b}[2Jno")]
    struct Denied;

    impl Explain for Denied {
        fn code(&self) -> Code {
            Code::RegistryUnauthorized
        }
    }

    #[test]
    fn an_error_ends_with_its_next_step_and_cannot_steer_the_terminal() {
        let error = CliError::from(Denied);
        assert_eq!(
            (error.exit, Denied.class()),
            (Exit::Refused, Class::Refused)
        );
        let next_step = Code::RegistryUnauthorized.next_step();
        assert_eq!(
            error.to_string(),
            format!("error: the registry said [2Jno\n  {next_step}")
        );
    }
}

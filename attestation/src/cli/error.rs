//! Why a command has no result, with the next step.

#[derive(Debug)]
pub(super) struct CommandError {
    pub(super) message: String,
    /// What to do next.
    pub(super) hint: &'static str,
}

impl CommandError {
    pub(super) fn new(message: impl std::fmt::Display, hint: &'static str) -> CommandError {
        CommandError {
            message: message.to_string(),
            hint,
        }
    }
}

/// An error and its sources in one line.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

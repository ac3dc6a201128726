//! Two ways to write errors and foreign text.

/// The longest text that is quoted, in characters.
const MAX_QUOTED: usize = 2000;

/// The error and all that caused it, outermost first, joined by `: `.
///
/// hyper's own messages name the failed step alone, and an AWS SDK's name less.
pub fn chain(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Foreign text on one line: without control characters, and cut after 2000 characters. It can
/// neither steer a terminal nor flood a log.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_QUOTED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause() {
        let inner = std::io::Error::other("inner");
        let outer = std::io::Error::other(Wrapped(inner));
        assert_eq!(chain(&outer), "outer: inner");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Wrapped(#[source] std::io::Error);

    #[test]
    fn foreign_text_stays_on_one_line_and_ends() {
        assert_eq!(printable("a\r\nb\u{1b}[0m\u{7}"), "ab[0m");
        assert_eq!(printable(&"x".repeat(2001)).len(), 2000);
    }
}

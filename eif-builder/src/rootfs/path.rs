//! Paths inside a root file system.

/// Longest path in bytes (Linux: PATH_MAX).
pub(super) const MAX_PATH: usize = 4096;
/// Longest component in bytes (Linux: NAME_MAX).
const MAX_NAME: usize = 255;
/// Nested directories; the writers walk the tree by recursion.
pub(super) const MAX_DEPTH: usize = 1024;

/// Why a path in an archive is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than Linux allows.
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// Too many components, or too many once symbolic links are followed.
    #[error("more than {MAX_DEPTH} nested directories")]
    TooDeep,
    /// A component is `..`: archivers disagree about what that means.
    #[error("the path contains '..'")]
    DotDot,
    /// A component that no Linux file system can hold.
    #[error("a name contains a NUL byte or is longer than {MAX_NAME} bytes")]
    Name,
}

/// A path below the root, split at its slashes; no component is empty, `.` or `..`. The root itself
/// has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreePath(Vec<Vec<u8>>);

impl TreePath {
    pub(super) fn parse(path: &[u8]) -> Result<TreePath, PathError> {
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let components: Vec<Vec<u8>> = path
            .split(|&b| b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect();
        if components.len() > MAX_DEPTH {
            return Err(PathError::TooDeep);
        }
        for part in &components {
            if part == b".." {
                return Err(PathError::DotDot);
            }
            if part.contains(&0) || part.len() > MAX_NAME {
                return Err(PathError::Name);
            }
        }
        Ok(TreePath(components))
    }

    /// The last component, and the directories before it. `None` for the root.
    pub(super) fn split_last(&self) -> Option<(&[u8], &[Vec<u8>])> {
        let (name, parents) = self.0.split_last()?;
        Some((name, parents))
    }

    /// As it is written in an archive, without a leading slash.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }

    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        self.0.iter().map(|name| name.len() + 48).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_their_last_value() {
        let nested = |n: usize| TreePath::parse("a/".repeat(n).as_bytes()).map(drop);
        assert_eq!(nested(MAX_DEPTH), Ok(()));
        assert_eq!(nested(MAX_DEPTH + 1), Err(PathError::TooDeep));
        assert_eq!(nested(MAX_PATH / 2 + 1), Err(PathError::TooLong));
        let named = |n: usize| TreePath::parse("n".repeat(n).as_bytes()).map(drop);
        assert_eq!(named(MAX_NAME), Ok(()));
        assert_eq!(named(MAX_NAME + 1), Err(PathError::Name));
    }

    #[test]
    fn empty_components_and_dots_are_dropped() {
        let path = TreePath::parse(b"/./a//b/.").unwrap();
        assert_eq!(path.to_bytes(), b"a/b");
        assert_eq!(path.split_last().unwrap().0, b"b");
        assert_eq!(TreePath::parse(b"./").unwrap().split_last(), None);
    }
}

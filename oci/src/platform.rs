//! Platforms: which of an image's variants is wanted.

/// `os/architecture`, with an optional variant, as in an image index (OCI image-spec,
/// image-index.md, "platform").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// An operating system by Go's name for it (`GOOS`), for example `linux`.
    pub os: String,
    /// A CPU architecture by Go's name for it (`GOARCH`), for example `amd64`.
    pub architecture: String,
    /// For example `v8` of `arm64`. Where none is wanted, any fits.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of every enclave: Linux on x86-64.
    pub fn linux_amd64() -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }

    /// Whether an image for `found` serves where this platform is wanted. A variant that was not
    /// asked for is no obstacle.
    pub(crate) fn is_served_by(&self, found: &Platform) -> bool {
        self.os == found.os
            && self.architecture == found.architecture
            && (self.variant.is_none() || self.variant == found.variant)
    }
}

/// A text that is not a [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not os/architecture, for example linux/amd64")]
pub struct PlatformError(String);

impl std::str::FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if !os.is_empty() && !architecture.is_empty() =>
            {
                Ok(Platform {
                    os,
                    architecture,
                    variant,
                })
            }
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints_and_nothing_else() {
        for good in ["linux/amd64", "linux/arm64/v8"] {
            assert_eq!(good.parse::<Platform>().unwrap().to_string(), good);
        }
        for bad in ["", "linux", "/amd64", "linux/", "a/b/c/d"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError(bad.to_owned())));
        }
    }

    #[test]
    fn a_variant_that_was_not_asked_for_is_no_obstacle() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let (any, v8) = (platform("linux/arm64"), platform("linux/arm64/v8"));
        assert!(any.is_served_by(&v8) && v8.is_served_by(&v8));
        assert!(!v8.is_served_by(&any) && !any.is_served_by(&Platform::linux_amd64()));
    }
}

//! From an image reference to a [`VerifiedImage`]: every byte is counted and hashed before it is
//! used.
//!
//! The files follow the data. [`mod@reference`] parses what is wanted, [`credentials`] finds who
//! asks, `registry` talks HTTP with `auth` and `transport` below it, `manifest` and `image_config`
//! read what the registry answers, `layer` unpacks and verifies the blobs, and [`pull`] runs all of
//! it. Every failure is a [`PullError`].
//!
//! Two modules serve other crates as well: [`https`], a bounded client for services of the
//! operator's, and [`address`], the one list of special-purpose addresses.
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod address;
mod auth;
mod content;
pub mod credentials;
mod digest;
mod error;
mod host;
pub mod https;
mod image_config;
pub mod json;
mod layer;
mod manifest;
mod platform;
pub mod pull;
pub mod reference;
mod registry;
mod secret;
mod transport;

pub use address::AddressClass;
pub use content::ContentError;
pub use digest::{Digest, DigestError};
pub use error::PullError;
pub use image_config::ImageConfig;
pub use layer::VerifiedLayer;
pub use platform::{Platform, PlatformError};
pub use pull::{PullProgress, PullRequest, VerifiedImage};
pub use reference::{Reference, ReferenceError};
pub use secret::{Credentials, Secret};
pub use transport::Endpoint;

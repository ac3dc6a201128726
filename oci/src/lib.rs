//! From an image reference to a [`VerifiedImage`]: every byte counted and hashed before anybody reads it.
//!
//! The order of the files is the order of the data: [`reference`] says what is wanted, [`credentials`] who asks,
//! `registry`, `auth` and `transport` carry it over HTTP, `manifest` reads what the registry answers, `layer` unpacks and checks the
//! bodies, [`pull`] runs all of it.

pub mod address;
mod auth;
pub mod credentials;
mod digest;
mod error;
pub mod https;
mod json;
mod layer;
mod manifest;
pub mod pull;
pub mod reference;
mod registry;
mod transport;

pub use address::AddressClass;
pub use credentials::{Credentials, Secret};
pub use digest::Digest;
pub use error::PullError;
pub use layer::VerifiedLayer;
pub use manifest::{ImageConfig, Platform};
pub use pull::{Progress, VerifiedImage};
pub use reference::Reference;
pub use registry::Registry;
pub use transport::{Endpoint, Http};

//! Sizes that a document's format fixes, and the bounds that this crate sets. In bytes, but for
//! counts and indexes.

/// The longest document that is read, in bytes. Genuine documents take 4 to 5 KiB; three fields of
/// 1024 bytes fit well below this.
pub const MAX_LEN: usize = 16 * 1024;
/// The longest certificate (attestation_process.md, 3.2.2).
pub(crate) const MAX_CERTIFICATE: usize = 1024;
/// The longest `public_key`, `user_data` or `nonce`: the NSM takes no more (nsm-api, nsm-check).
pub(crate) const MAX_FIELD: usize = 1024;
/// The most certificates in a cabundle.
pub(crate) const MAX_CABUNDLE: u64 = 16;
/// Registers are numbered from 0 to this.
pub(crate) const MAX_PCR_INDEX: u8 = 31;

//! All conditions on registers as one table of allowed values.

use super::error::PolicyError;
use crate::conditions::Conditions;
use crate::limits::MAX_PCR_INDEX;
use crate::pcr::Pcr;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha384};
use std::collections::{BTreeMap, BTreeSet};

/// The values that are allowed for each register, by index.
pub(super) type Registers = BTreeMap<u8, BTreeSet<Pcr>>;

pub(super) fn allowed(conditions: &Conditions) -> Result<Registers, PolicyError> {
    let mut registers = conditions.pcrs.clone();
    if let Some((index, _)) = registers.iter().find(|(index, _)| **index > MAX_PCR_INDEX) {
        return Err(PolicyError::Index(*index));
    }
    if let Some((index, _)) = registers.iter().find(|(_, allowed)| allowed.is_empty()) {
        return Err(PolicyError::Empty(*index));
    }
    let mut require = |index, pcr| match registers.insert(index, BTreeSet::from([pcr])) {
        Some(other) if other != BTreeSet::from([pcr]) => Err(PolicyError::Conflict(index)),
        _ => Ok(()),
    };
    if let Some(measurements) = &conditions.measurements {
        for (index, pcr) in measurements.registers() {
            require(index, pcr)?;
        }
    }
    if let Some(arn) = &conditions.role_arn {
        require(3, of_role(arn)?)?;
    }
    if let Some(id) = &conditions.instance_id {
        require(4, of_instance(id)?)?;
    }
    if let Some(pem) = &conditions.signing_certificate {
        require(8, of_certificate(pem)?)?;
    }
    Ok(registers)
}

/// `arn:PARTITION:iam::ACCOUNT:role/[PATH/]NAME`.
fn of_role(arn: &str) -> Result<Pcr, PolicyError> {
    let valid = match *arn.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        ["arn", partition, "iam", "", account, resource] => {
            partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && matches!(resource.strip_prefix("role/"), Some(name) if !name.is_empty())
                && arn.bytes().all(|b| b.is_ascii_graphic())
        }
        _ => false,
    };
    if valid {
        Ok(Pcr::of_name(arn))
    } else {
        Err(PolicyError::RoleArn(arn.to_owned()))
    }
}

/// `i-` and 8 or 17 lower-case hexadecimal digits.
fn of_instance(id: &str) -> Result<Pcr, PolicyError> {
    let digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    match id.strip_prefix("i-") {
        Some(digits) if matches!(digits.len(), 8 | 17) && digits.bytes().all(digit) => {
            Ok(Pcr::of_name(id))
        }
        _ => Err(PolicyError::InstanceId(id.to_owned())),
    }
}

fn of_certificate(pem: &str) -> Result<Pcr, PolicyError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| PolicyError::SigningCertificate)?;
    Ok(Pcr::of_content_hash(Sha384::digest(&der).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector is from the tests of qos_nsm; instance ids are tested against documents of real
    /// enclaves.
    #[test]
    fn pcr3_is_made_of_the_role() {
        assert_eq!(
            of_role("arn:aws:iam::123456789012:role/Webserver")
                .unwrap()
                .to_string(),
            "78fce75db17cd4e0a3fb8dad3ad128ca5e77edbb2b2c7f75329dccd99aa5f6ef4fc1f1a452e315b9e98f9e312e6921e6"
        );
        assert!(of_role("arn:aws-us-gov:iam::123456789012:role/path/to/Webserver").is_ok());
    }
}

//! The few fields that the agent reads of the NSM's documents, which are its own: they need no
//! verification here.

/// Milliseconds since 1970 of a document of our own NSM, which needs no verification.
pub(crate) fn timestamp(document: &[u8]) -> Result<Option<u64>, minicbor::decode::Error> {
    let found = field(document, "timestamp")?;
    found.map(|mut value| value.u64()).transpose()
}

/// Whether the enclave's image is measured in such a document. In debug mode, and only there, PCR0
/// is zeros (AWS, "Cryptographic attestation").
pub(crate) fn is_measured(document: &[u8]) -> Result<bool, minicbor::decode::Error> {
    let image = image_register(document)?;
    Ok(image.is_some_and(|register| register.iter().any(|&byte| byte != 0)))
}

/// PCR0 of such a document.
fn image_register(document: &[u8]) -> Result<Option<&[u8]>, minicbor::decode::Error> {
    let Some(mut registers) = field(document, "pcrs")? else {
        return Ok(None);
    };
    for _ in 0..registers.map()?.unwrap_or(u64::MAX) {
        if registers.u16()? == 0 {
            return registers.bytes().map(Some);
        }
        registers.skip()?;
    }
    Ok(None)
}

/// A field of its payload.
fn field<'d>(
    document: &'d [u8],
    name: &str,
) -> Result<Option<minicbor::Decoder<'d>>, minicbor::decode::Error> {
    let mut cose = minicbor::Decoder::new(document);
    cose.array()?;
    cose.skip()?;
    cose.skip()?;
    let mut payload = minicbor::Decoder::new(cose.bytes()?);
    let count = payload.map()?.unwrap_or(u64::MAX);
    for _ in 0..count {
        if payload.str()? == name {
            return Ok(Some(payload));
        }
        payload.skip()?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_tells_the_time() {
        let mut payload = minicbor::Encoder::new(Vec::new());
        payload.map(2).unwrap().str("pcrs").unwrap().map(0).unwrap();
        payload.str("timestamp").unwrap().u64(1234).unwrap();
        let mut cose = minicbor::Encoder::new(Vec::new());
        cose.array(4).unwrap().bytes(&[]).unwrap().map(0).unwrap();
        cose.bytes(&payload.into_writer()).unwrap();
        cose.bytes(&[]).unwrap();
        assert_eq!(timestamp(&cose.into_writer()).unwrap(), Some(1234));
        assert!(timestamp(b"x").is_err());
    }
}

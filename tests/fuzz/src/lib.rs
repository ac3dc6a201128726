//! What the targets share: a good document, and edits to it, since random bytes would never get
//! past the first rule.

/// Reads `edits` as a list of small changes to `good`: set, insert, delete, copy within. An empty
/// list changes nothing, and a first byte of 0xff means that the rest is taken as it is.
pub fn edited(good: &[u8], edits: &[u8]) -> Vec<u8> {
    if let [0xff, raw @ ..] = edits {
        return raw.to_vec();
    }
    let mut bytes = good.to_vec();
    let mut rest = edits;
    while let [what, high, low, value, after @ ..] = rest {
        rest = after;
        let at = usize::from(u16::from_be_bytes([*high, *low])).min(bytes.len());
        let end = (at + usize::from(*value)).min(bytes.len());
        match what % 4 {
            0 if at < bytes.len() => bytes[at] = *value,
            1 => bytes.insert(at, *value),
            2 => drop(bytes.drain(at..end)),
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(end..end, copy);
            }
        }
    }
    bytes
}

//! Strict DER (X.690, 10 and 11): one-byte tags, shortest lengths, canonical values, exact ends.
//! Borrows everything; does not recurse.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// What is wrong with the bytes.
pub(crate) type DerError = &'static str;

/// A cursor over consecutive elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Der<'b>(&'b [u8]);

impl<'b> Der<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Der(bytes)
    }

    pub(crate) fn next_is(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element's content, and the element as a whole.
    pub(crate) fn element(&mut self, tag: u8) -> Result<(&'b [u8], &'b [u8]), DerError> {
        let [found, first, rest @ ..] = self.0 else {
            return Err("an element is cut off or missing");
        };
        if *found != tag {
            return Err("an element has an unexpected tag");
        }
        let (len, rest) = match (first, rest) {
            (0..=0x7f, _) => (usize::from(*first), rest),
            (0x81, [len @ 0x80..=0xff, rest @ ..]) => (usize::from(*len), rest),
            (0x82, [high @ 1..=0xff, low, rest @ ..]) => {
                (usize::from(u16::from_be_bytes([*high, *low])), rest)
            }
            _ => return Err("a length is not in its shortest form, indefinite, or above 65535"),
        };
        let (content, after) = rest
            .split_at_checked(len)
            .ok_or("an element is longer than its container")?;
        let (whole, _) = self.0.split_at(self.0.len() - after.len());
        self.0 = after;
        Ok((content, whole))
    }

    pub(crate) fn content(&mut self, tag: u8) -> Result<&'b [u8], DerError> {
        self.element(tag).map(|(content, _)| content)
    }

    pub(crate) fn sequence(&mut self) -> Result<Der<'b>, DerError> {
        self.content(SEQUENCE).map(Der)
    }

    /// A non-negative integer's big-endian bytes, without a sign byte.
    pub(crate) fn unsigned(&mut self) -> Result<&'b [u8], DerError> {
        match self.content(INTEGER)? {
            [] => Err("an integer is empty"),
            [0] => Ok(&[0]),
            [0, digits @ ..] if digits.first() >= Some(&0x80) => Ok(digits),
            [0, ..] => Err("an integer is not in its shortest form"),
            [0x80..=0xff, ..] => Err("an integer is negative"),
            digits => Ok(digits),
        }
    }

    /// A boolean that is absent when false: DER omits default values and has one form of true.
    pub(crate) fn default_false(&mut self) -> Result<bool, DerError> {
        if !self.next_is(BOOLEAN) {
            return Ok(false);
        }
        match self.content(BOOLEAN)? {
            [0xff] => Ok(true),
            _ => Err("a boolean is not in its canonical form"),
        }
    }

    /// A bit string of whole bytes.
    pub(crate) fn octets_in_bits(&mut self) -> Result<&'b [u8], DerError> {
        match self.content(BIT_STRING)? {
            [0, octets @ ..] => Ok(octets),
            _ => Err("a bit string is not made of whole bytes"),
        }
    }

    /// Up to 16 named bits, the first one the most significant (X.690, 11.2.2: no trailing zeros).
    pub(crate) fn named_bits(&mut self) -> Result<u16, DerError> {
        let (unused, bits, last) = match self.content(BIT_STRING)? {
            [unused @ 0..=7, one] => (*unused, u16::from(*one) << 8, *one),
            [unused @ 0..=7, one, two] => (*unused, u16::from_be_bytes([*one, *two]), *two),
            [0] => return Ok(0),
            _ => return Err("named bits are missing or too many"),
        };
        if last.trailing_zeros() == u32::from(unused) {
            Ok(bits)
        } else {
            Err("named bits are not in their canonical form")
        }
    }

    pub(crate) fn end(&self) -> Result<(), DerError> {
        match self.0 {
            [] => Ok(()),
            _ => Err("bytes follow the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_form() {
        let content = |bytes: &[u8]| Der::new(bytes).content(OCTET_STRING).map(<[u8]>::len);
        assert_eq!(content(&[4, 1, 7]), Ok(1));
        let long = |head: &[u8], len: usize| content(&[head, &vec![0; len]].concat());
        assert_eq!(long(&[4, 0x81, 0x80], 0x80), Ok(0x80));
        assert_eq!(long(&[4, 0x82, 1, 0], 0x100), Ok(0x100));
        let not_shortest = Err("a length is not in its shortest form, indefinite, or above 65535");
        assert_eq!(long(&[4, 0x81, 0x7f], 0x7f), not_shortest);
        assert_eq!(long(&[4, 0x82, 0, 0x80], 0x80), not_shortest);
        assert_eq!(long(&[4, 0x83, 1, 0, 0], 0x10000), not_shortest);
        assert_eq!(long(&[4, 0x80], 4), not_shortest);
        assert_eq!(
            content(&[4, 2, 7]),
            Err("an element is longer than its container")
        );
        assert_eq!(content(&[2, 1, 7]), Err("an element has an unexpected tag"));
        assert_eq!(content(&[4]), Err("an element is cut off or missing"));
    }

    #[test]
    fn values_have_one_form() {
        let unsigned = |bytes: &'static [u8]| Der::new(bytes).unsigned();
        assert_eq!(unsigned(&[2, 2, 0, 0x80]), Ok([0x80].as_slice()));
        assert_eq!(unsigned(&[2, 1, 0]), Ok([0].as_slice()));
        for bad in [&[2, 0][..], &[2, 2, 0, 1], &[2, 1, 0x80], &[2, 2, 0, 0]] {
            assert!(Der::new(bad).unsigned().is_err(), "{bad:?}");
        }
        assert_eq!(Der::new(&[1, 1, 0xff]).default_false(), Ok(true));
        for bad in [&[1, 1, 0][..], &[1, 1, 1], &[1, 2, 0xff, 0xff], &[1, 0]] {
            assert!(Der::new(bad).default_false().is_err(), "{bad:?}");
        }
        assert_eq!(Der::new(&[3, 2, 1, 6]).named_bits(), Ok(0x0600));
        assert_eq!(Der::new(&[3, 3, 7, 6, 0x80]).named_bits(), Ok(0x0680));
        for bad in [
            &[3, 2, 0, 6][..],
            &[3, 2, 2, 6],
            &[3, 2, 8, 0],
            &[3, 2, 7, 0],
            &[3, 0],
            &[3, 4, 0, 1, 1, 1],
        ] {
            assert!(Der::new(bad).named_bits().is_err(), "{bad:?}");
        }
        for bad in [&[3, 1][..], &[3, 0], &[3, 2, 1, 2], &[3, 2, 0x80, 2]] {
            assert!(Der::new(bad).octets_in_bits().is_err(), "{bad:?}");
        }
    }
}

//! Strict CBOR on top of minicbor: shortest lengths, definite strings, no tags inside, exact ends.
//! Borrows everything; allocates nothing; does not recurse.

use minicbor::Decoder;
use minicbor::data::Type;

/// Why bytes are not CBOR in the one form that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The item at a byte is not what it must be.
    #[error("byte {at}: {problem}")]
    Invalid {
        /// Where the item starts, in bytes from the start of the part.
        at: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

type Result<T> = std::result::Result<T, CborError>;

/// A cursor over one CBOR item. Every method reads one item or head and refuses any other kind.
#[derive(Debug)]
pub(crate) struct StrictDecoder<'b> {
    decoder: Decoder<'b>,
}

/// How many items a collection announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Definite(u64),
    Indefinite,
}

impl<'b> StrictDecoder<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        StrictDecoder {
            decoder: Decoder::new(bytes),
        }
    }

    fn invalid<T>(&self, problem: &'static str) -> Result<T> {
        Err(CborError::Invalid {
            at: self.decoder.position(),
            problem,
        })
    }

    /// Runs one minicbor read and checks that the head is no longer than its argument needs (RFC
    /// 8949, 4.2.1).
    fn minimal<T>(
        &mut self,
        kind: &'static str,
        read: impl FnOnce(&mut Decoder<'b>) -> std::result::Result<T, minicbor::decode::Error>,
        argument_and_body: impl FnOnce(&T) -> (u64, usize),
    ) -> Result<T> {
        let start = self.decoder.position();
        let Ok(value) = read(&mut self.decoder) else {
            return Err(CborError::Invalid {
                at: start,
                problem: kind,
            });
        };
        let (argument, body) = argument_and_body(&value);
        let head = match argument {
            0..=23 => 1,
            24..=0xff => 2,
            0x100..=0xffff => 3,
            0x1_0000..=0xffff_ffff => 5,
            _ => 9,
        };
        if self.decoder.position() - start != head + body {
            return Err(CborError::Invalid {
                at: start,
                problem: "a length or number is not in its shortest form",
            });
        }
        Ok(value)
    }

    pub(crate) fn uint(&mut self) -> Result<u64> {
        self.minimal("expected an unsigned integer", |d| d.u64(), |n| (*n, 0))
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        self.minimal(
            "expected an integer",
            |d| d.i64(),
            |n| {
                (
                    u64::try_from(*n).unwrap_or_else(|_| n.unsigned_abs() - 1),
                    0,
                )
            },
        )
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8]> {
        self.minimal(
            "expected a byte string of definite length",
            |d| d.bytes(),
            |s| (s.len() as u64, s.len()),
        )
    }

    pub(crate) fn text(&mut self) -> Result<&'b str> {
        self.minimal(
            "expected a text string of definite length",
            |d| d.str(),
            |s| (s.len() as u64, s.len()),
        )
    }

    pub(crate) fn array(&mut self) -> Result<u64> {
        self.minimal("expected an array", |d| d.array(), |n| (n.unwrap_or(0), 0))?
            .map_or_else(|| self.invalid("expected an array of definite length"), Ok)
    }

    pub(crate) fn map(&mut self) -> Result<Count> {
        let count = self.minimal("expected a map", |d| d.map(), |n| (n.unwrap_or(0), 0))?;
        Ok(count.map_or(Count::Indefinite, Count::Definite))
    }

    /// Whether another entry follows in a map of `count` entries, after `read` of them.
    pub(crate) fn more(&mut self, count: Count, read: u64) -> Result<bool> {
        match count {
            Count::Definite(n) => Ok(read < n),
            Count::Indefinite => match self.decoder.datatype() {
                Ok(Type::Break) => {
                    let position = self.decoder.position();
                    self.decoder.set_position(position + 1);
                    Ok(false)
                }
                Ok(_) => Ok(true),
                Err(_) => self.invalid("the map does not end"),
            },
        }
    }

    /// Reads `null` if it is there.
    pub(crate) fn null(&mut self) -> Result<bool> {
        match self.decoder.datatype() {
            Ok(Type::Null) => Ok(self.decoder.null().is_ok()),
            Ok(_) => Ok(false),
            Err(_) => self.invalid("a value is missing"),
        }
    }

    /// Reads tag 18 (COSE_Sign1, RFC 9052, 4.2) if it is there.
    pub(crate) fn sign1_tag(&mut self) -> Result<()> {
        if matches!(self.decoder.datatype(), Ok(Type::Tag)) {
            let tag = self.minimal("expected a tag", |d| d.tag(), |t| (t.as_u64(), 0))?;
            if tag.as_u64() != 18 {
                return self.invalid("the tag is not COSE_Sign1 (18)");
            }
        }
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.decoder.position() == self.decoder.input().len() {
            Ok(())
        } else {
            self.invalid("bytes follow the end")
        }
    }
}

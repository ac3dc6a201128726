//! DNS messages (RFC 1035, 4), as far as a resolver's question and an answer of one address need
//! them. Borrows, never recurses, and reads no compressed name: a question has nothing to refer to.

use std::fmt::Write as _;
use std::net::IpAddr;

/// In bytes (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// The longest name in a message, in bytes (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
const CLASS_IN: u16 = 1;
/// Seconds that an answer may be kept for.
pub(super) const TTL: u32 = 60;

/// Flags of the second 16 bits of a header: answer, recursion desired, recursion available.
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;

/// Why bytes are not a question that has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("it is shorter than a header")]
    NoHeader,
    #[error("it is an answer")]
    Answer,
    #[error("it is no plain query")]
    Opcode,
    #[error("it does not hold exactly one question")]
    Questions,
    #[error("the question is cut off")]
    CutOff,
    #[error("a label of the question is compressed or of an unknown kind")]
    Label,
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
}

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'m> {
    id: u16,
    flags: u16,
    /// The name without its last dot, in lower case. Bytes that no host name has are `\` and three
    /// digits (RFC 1035, 5.1), so that no two names are written alike.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether it is about the Internet.
    pub(super) internet: bool,
    /// As it was sent: the answer repeats it.
    raw: &'m [u8],
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Address(IpAddr),
    /// The name exists; there is nothing of this kind.
    Nothing,
    NoSuchName,
    /// Not now.
    Failure,
    Refused,
}

/// Reads a question. What follows it, such as EDNS, is ignored (RFC 6891, 7).
pub(super) fn parse(message: &[u8]) -> Result<Question<'_>, MessageError> {
    let mut header = message.chunks_exact(2).map(number);
    let mut field = || header.next().ok_or(MessageError::NoHeader);
    let (id, flags, questions) = (field()?, field()?, field()?);
    let body = message.get(HEADER..).ok_or(MessageError::NoHeader)?;
    if flags & QR != 0 {
        return Err(MessageError::Answer);
    }
    if flags & OPCODE != 0 {
        return Err(MessageError::Opcode);
    }
    if questions != 1 {
        return Err(MessageError::Questions);
    }
    let (name, len) = name(body)?;
    let raw = body.get(..len + 4).ok_or(MessageError::CutOff)?;
    let mut after = raw
        .get(len..)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(number);
    let (kind, class) = (after.next(), after.next());
    let kind = match kind {
        Some(1) => Kind::A,
        Some(28) => Kind::Aaaa,
        _ => Kind::Other,
    };
    Ok(Question {
        id,
        flags,
        name,
        kind,
        internet: class == Some(CLASS_IN),
        raw,
    })
}

/// The name that a body starts with, and its length in bytes.
fn name(body: &[u8]) -> Result<(String, usize), MessageError> {
    let (mut name, mut rest) = (String::new(), body);
    loop {
        let (&len, after) = rest.split_first().ok_or(MessageError::CutOff)?;
        let len = usize::from(len);
        let read = body.len() - after.len();
        if len > MAX_LABEL {
            return Err(MessageError::Label);
        }
        if read + len > MAX_NAME {
            return Err(MessageError::NameTooLong);
        }
        if len == 0 {
            return Ok((name, read));
        }
        let (label, after) = after.split_at_checked(len).ok_or(MessageError::CutOff)?;
        if !name.is_empty() {
            name.push('.');
        }
        label.iter().for_each(|&byte| push(&mut name, byte));
        rest = after;
    }
}

fn push(name: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
        name.push(char::from(byte.to_ascii_lowercase()));
    } else {
        // Writing into a string does not fail.
        write!(name, "\\{byte:03}").ok();
    }
}

fn number(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u16::from(byte))
}

impl Question<'_> {
    /// The answer's bytes: 299 at most, so that it is never cut off.
    pub(super) fn answer(&self, answer: Answer) -> Vec<u8> {
        let (code, address) = match answer {
            Answer::Address(address) => (0, Some(address)),
            Answer::Nothing => (0, None),
            Answer::Failure => (2, None),
            Answer::NoSuchName => (3, None),
            Answer::Refused => (5, None),
        };
        let flags = QR | (self.flags & RD) | RA | code;
        let mut bytes = header(self.id, flags, 1, u16::from(address.is_some()));
        bytes.extend_from_slice(self.raw);
        if let Some(address) = address {
            let (kind, data) = match address {
                IpAddr::V4(v4) => (1_u16, v4.octets().to_vec()),
                IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            // The name is the one at byte 12 (RFC 1035, 4.1.4).
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
            bytes.extend_from_slice(&TTL.to_be_bytes());
            let len = u16::try_from(data.len()).unwrap_or_default();
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&data);
        }
        bytes
    }
}

/// The answer to what is no question: not implemented, or a format error. `None` if there is no
/// one to answer.
pub(super) fn refusal(message: &[u8], why: MessageError) -> Option<Vec<u8>> {
    let code = match why {
        MessageError::NoHeader | MessageError::Answer => return None,
        MessageError::Opcode => 4,
        _ => 1,
    };
    let id = message.get(..2).map(number)?;
    Some(header(id, QR | RA | code, 0, 0))
}

fn header(id: u16, flags: u16, questions: u16, answers: u16) -> Vec<u8> {
    [id, flags, questions, answers, 0, 0]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question as glibc sends it.
    fn question(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = header(0x1234, RD, 1, 0);
        for label in labels {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label);
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        bytes
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_question_or_an_error(bytes in proptest::collection::vec(0u8.., 0..600)) {
            match parse(&bytes) {
                Ok(question) => {
                    let answer = question.answer(Answer::Address([198, 18, 1, 0].into()));
                    assert!(answer.len() <= 299);
                }
                Err(why) => drop(refusal(&bytes, why)),
            }
        }

        #[test]
        fn a_host_name_is_read_as_it_was_asked(name in "[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,61}){0,3}") {
            let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
            assert_eq!(parse(&question(&labels, 1)).unwrap().name, name);
        }
    }

    #[test]
    fn reads_a_question_and_repeats_it_as_it_was_written() {
        let mut bytes = question(&[b"aPi", b"example", b"com"], 1);
        let whole = bytes.clone();
        // EDNS follows.
        bytes.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let asked = parse(&bytes).unwrap();
        assert_eq!(
            (asked.name.as_str(), asked.kind),
            ("api.example.com", Kind::A)
        );
        let answer = asked.answer(Answer::Address("198.18.1.0".parse().unwrap()));
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[HEADER..whole.len()], whole[HEADER..]);
        assert_eq!(
            answer[whole.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 1, 0]
        );
    }

    #[test]
    fn every_answer_has_its_code() {
        let bytes = question(&[b"a"], 28);
        let asked = parse(&bytes).unwrap();
        assert_eq!(asked.kind, Kind::Aaaa);
        for (answer, code) in [
            (Answer::Nothing, 0),
            (Answer::Failure, 2),
            (Answer::NoSuchName, 3),
            (Answer::Refused, 5),
        ] {
            let answered = asked.answer(answer);
            assert_eq!((answered[3] & 15, answered.len()), (code, bytes.len()));
        }
    }

    #[test]
    fn bytes_that_no_host_name_has_cannot_imitate_one() {
        let name = |labels: &[&[u8]]| parse(&question(labels, 1)).unwrap().name;
        assert_eq!(name(&[b"a.example", b"com"]), "a\\046example.com");
        assert_eq!(name(&[b"a\\046b"]), "a\\092046b");
        assert_eq!(name(&[b"a\0\xff"]), "a\\000\\255");
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn a_name_is_255_bytes_long_at_most() {
        let label = [b'a'; 63];
        let longest = [&label[..], &label, &label, &label[..61]];
        assert_eq!(parse(&question(&longest, 1)).unwrap().name.len(), 253);
        let longer = [&label[..], &label, &label, &label[..62]];
        assert_eq!(parse(&question(&longer, 1)), Err(MessageError::NameTooLong));
    }

    #[test]
    fn refuses_what_is_no_single_question() {
        let good = question(&[b"a"], 1);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        for (bytes, error, code) in [
            (vec![0; 11], MessageError::NoHeader, None),
            (changed(2, 0x80), MessageError::Answer, None),
            (changed(2, 0x10), MessageError::Opcode, Some(4)),
            (changed(5, 0), MessageError::Questions, Some(1)),
            (changed(5, 2), MessageError::Questions, Some(1)),
            (changed(12, 0xc0), MessageError::Label, Some(1)),
            (changed(12, 9), MessageError::CutOff, Some(1)),
            (
                good[..good.len() - 1].to_vec(),
                MessageError::CutOff,
                Some(1),
            ),
        ] {
            assert_eq!(parse(&bytes), Err(error));
            let refused = refusal(&bytes, error);
            assert_eq!(refused.map(|answer| answer[3] & 15), code, "{error}");
        }
    }
}

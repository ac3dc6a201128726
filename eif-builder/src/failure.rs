//! How a command line ends that did not do what it was asked: in words, with the next step, and with an exit code of sysexits.h.

pub const USAGE: u8 = 64;
pub const DATA: u8 = 65;
pub const UNAVAILABLE: u8 = 69;
pub const BUG: u8 = 70;
pub const REFUSED: u8 = 77;
pub const CONFIG: u8 = 78;

#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub hint: String,
    pub code: u8,
}

impl Failure {
    pub fn new(code: u8, message: impl std::fmt::Display, hint: impl Into<String>) -> Failure {
        Failure {
            message: message.to_string(),
            hint: hint.into(),
            code,
        }
    }
}

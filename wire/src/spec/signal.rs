//! The signal that ends a workload.

use super::error::{InvalidValue, SpecError};
use serde::{Deserialize, Serialize};

/// A Linux signal number that may end a workload (signal(7), x86 and arm numbering).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

impl Signal {
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`, as image configs write it.
    ///
    /// # Errors
    /// [`SpecError::Value`] if the text is no such name and no number of 1 to 64.
    pub fn parse(text: &str) -> Result<Signal, SpecError> {
        const NAMES: [(&str, u8); 10] = [
            ("HUP", 1),
            ("INT", 2),
            ("QUIT", 3),
            ("ABRT", 6),
            ("KILL", 9),
            ("USR1", 10),
            ("USR2", 12),
            ("TERM", 15),
            ("CONT", 18),
            ("WINCH", 28),
        ];
        let bad = || InvalidValue::Signal(text.to_owned()).of("stop_signal");
        let name = text.strip_prefix("SIG").unwrap_or(text);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        if let Some(offset) = name.strip_prefix("RTMIN+") {
            let offset: u8 = offset.parse().map_err(|_| bad())?;
            return Signal::try_from(offset.saturating_add(34)).map_err(|_| bad());
        }
        Signal::try_from(name.parse::<u8>().map_err(|_| bad())?).map_err(|_| bad())
    }

    /// 1 to 64.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Signal {
    type Error = SpecError;
    fn try_from(number: u8) -> Result<Self, SpecError> {
        match number {
            1..=64 => Ok(Signal(number)),
            _ => Err(InvalidValue::Signal(number.to_string()).of("stop_signal")),
        }
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_signals_as_image_configs_write_them() {
        for (text, number) in [("SIGTERM", 15), ("TERM", 15), ("9", 9), ("SIGRTMIN+3", 37)] {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGFOO", "RTMIN+200", "-1"] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }
}

//! Progress bars on a terminal, one line per stage elsewhere.

use super::output::warn;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci::Digest;
use std::io::IsTerminal as _;
use std::time::Duration;

pub(super) struct ProgressBars {
    bar: ProgressBar,
    terminal: bool,
}

impl ProgressBars {
    pub(super) fn new() -> ProgressBars {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal {
                ProgressDrawTarget::stderr()
            } else {
                ProgressDrawTarget::hidden()
            },
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        ProgressBars { bar, terminal }
    }

    fn stage(&self, message: String, bytes: Option<u64>) {
        if !self.terminal {
            warn(&message);
            return;
        }
        let template = match bytes {
            Some(_) => "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {eta}",
            None => "{spinner} {msg} {elapsed}",
        };
        self.bar.reset();
        self.bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        self.bar.set_length(bytes.unwrap_or(0));
        self.bar.set_message(message);
    }

    pub(super) fn start(&self, message: &str) {
        self.stage(message.to_owned(), None);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl oci::PullProgress for ProgressBars {
    fn resolved(&self, digest: Digest, layers: &[u64]) {
        let total = layers.iter().sum();
        let digest = digest.to_string();
        let short = digest.get(..19).unwrap_or(&digest);
        self.stage(
            format!("pulling and verifying {} layers of {short}", layers.len()),
            Some(total),
        );
    }

    fn received(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl eif_builder::build::BuildProgress for ProgressBars {
    fn merged(&self, bytes: u64) {
        self.stage("writing the root file system".to_owned(), Some(bytes));
    }

    fn packed(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn measuring(&self) {
        self.stage("measuring".to_owned(), None);
    }
}

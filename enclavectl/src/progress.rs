//! A deploy under way on standard error: a line for each stage, and a progress bar below it on a
//! terminal.

use crate::ui;
use api::{EnclaveEvent, Stage, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

const SPINNER: &str = "  {spinner} {msg} {elapsed}";
const BAR: &str = "  {spinner} {msg} {wide_bar} {bytes}/{total_bytes} {eta}";

/// What is shown of a deploy.
pub(crate) struct DeployProgress {
    bar: ProgressBar,
    is_terminal: bool,
    stage: Option<(Stage, Instant)>,
}

impl DeployProgress {
    pub(crate) fn new() -> DeployProgress {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(100));
        DeployProgress {
            bar,
            is_terminal,
            stage: None,
        }
    }

    pub(crate) fn show(&mut self, event: &EnclaveEvent) {
        match event {
            EnclaveEvent::Progress { stage, done, total } => self.advance(*stage, *done, *total),
            EnclaveEvent::Config { .. } | EnclaveEvent::Release { .. } => {}
            EnclaveEvent::Status { state, .. } => {
                let failed = state.status() == Status::Failed;
                self.close_stage(if failed { "✗" } else { "✓" });
                match state.stage() {
                    Some(stage) => self.open_stage(stage),
                    None => self.line(&state.status().to_string()),
                }
            }
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Progress of a stage that is not the current one came too late.
    fn advance(&self, stage: Stage, done: u64, total: u64) {
        if self.stage.is_some_and(|(current, _)| current == stage) {
            self.style(BAR);
            self.bar.set_length(total);
            self.bar.set_position(done);
        }
    }

    fn open_stage(&mut self, stage: Stage) {
        self.stage = Some((stage, Instant::now()));
        self.style(SPINNER);
        self.bar.reset();
        self.bar.set_message(stage.describe());
    }

    fn close_stage(&mut self, mark: &str) {
        if let Some((stage, began)) = self.stage.take() {
            let seconds = began.elapsed().as_secs_f64();
            self.line(&format!(
                "  {mark} {:<44} {seconds:>6.1} s",
                stage.describe()
            ));
        }
    }

    fn line(&self, text: &str) {
        if self.is_terminal {
            self.bar.println(text);
        } else {
            ui::tell(text);
        }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}

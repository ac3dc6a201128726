//! A token bucket: so much at once, and so much a second from then on.

use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Bucket {
    /// Between two calls in the long run.
    interval: Duration,
    /// How far ahead of that a full bucket may get.
    ahead: Duration,
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Full, with room for `burst` tokens of which `per_second` come back.
    pub(crate) fn new(per_second: u32, burst: u32) -> Bucket {
        let interval = Duration::from_secs(1) / per_second;
        Bucket {
            interval,
            ahead: interval * burst.saturating_sub(1),
            full_at: None,
        }
    }

    /// Takes a token, or says how long there is none.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let missing = full_at.duration_since(now).saturating_sub(self.ahead);
        if missing > Duration::ZERO {
            return Err(missing);
        }
        self.full_at = Some(full_at + self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_call_an_interval() {
        let mut bucket = Bucket::new(20, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(Instant::now()), Ok(()));
        }
        let millis = Duration::from_millis;
        assert_eq!(bucket.take(Instant::now()), Err(millis(50)));
        advance(millis(30)).await;
        assert_eq!(bucket.take(Instant::now()), Err(millis(20)));
        advance(millis(20)).await;
        assert_eq!(bucket.take(Instant::now()), Ok(()));
        assert_eq!(bucket.take(Instant::now()), Err(millis(50)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_holds_more_than_the_burst() {
        let mut bucket = Bucket::new(1, 2);
        advance(Duration::from_secs(3600)).await;
        let taken = (0..5).filter(|_| bucket.take(Instant::now()).is_ok());
        assert_eq!(taken.count(), 2);
    }
}

//! Credentials that were issued, until shortly before they expire; and one question at a time for each project and action, however many
//! ask at once.

use super::project::Project;
use super::provider::{Action, Issued, ProviderError, RegistryProvider};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Who gets credentials has at least so long to use them.
const SLACK: Duration = Duration::from_secs(5 * 60);
/// What a provider may take, retries included.
const TIMEOUT: Duration = Duration::from_secs(45);
/// Projects that are remembered; tokens take some KiB each.
const CAPACITY: usize = 4096;

type Slot = Arc<tokio::sync::Mutex<Option<Issued>>>;

#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: Mutex<BTreeMap<(Project, Action), Slot>>,
}

impl Cache {
    pub(super) async fn credentials(
        &self,
        provider: &dyn RegistryProvider,
        project: &Project,
        action: Action,
        now: impl Fn() -> SystemTime,
    ) -> Result<Issued, ProviderError> {
        let slot = self.slot(project, action);
        let mut kept = slot.lock().await;
        if let Some(issued) = kept.as_ref().filter(|issued| is_fresh(issued, now())) {
            return Ok(issued.clone());
        }
        *kept = None;
        let late = |_| ProviderError::Unavailable("the registry's service did not answer in time".to_owned());
        let issued = timeout(TIMEOUT, provider.issue(project, action)).await.map_err(late)??;
        // What is about to expire when it comes is given to nobody: it would fail in the middle of a push.
        if issued.expires_at.is_some_and(|at| at <= now()) {
            return Err(ProviderError::Unavailable(
                "the registry's service issued an expired token".to_owned(),
            ));
        }
        *kept = issued.expires_at.is_some().then(|| issued.clone());
        Ok(issued)
    }

    fn slot(&self, project: &Project, action: Action) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= CAPACITY {
            // Those that nobody waits at; whoever comes back asks the provider again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry((project.clone(), action)).or_default().clone()
    }
}

fn is_fresh(issued: &Issued, now: SystemTime) -> bool {
    issued.expires_at.is_some_and(|at| now + SLACK < at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::provider::Issuing;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A fake provider that counts, and whose tokens live for an hour from a given time.
    #[derive(Debug)]
    struct Counting {
        asked: AtomicU32,
        issued_at: SystemTime,
        lifetime: Duration,
    }

    impl RegistryProvider for Counting {
        fn issue<'a>(&'a self, _: &'a Project, _: Action) -> Issuing<'a> {
            Box::pin(async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let expires_at = Some(self.issued_at + self.lifetime);
                Ok(Issued { registry_url: "r".to_owned(), login: None, expires_at })
            })
        }
    }

    fn counting(lifetime: u64) -> Counting {
        let issued_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Counting { asked: AtomicU32::new(0), issued_at, lifetime: Duration::from_secs(lifetime) }
    }

    #[tokio::test]
    async fn a_thousand_questions_at_once_are_one_upstream() {
        let (cache, provider) = (Arc::new(Cache::default()), Arc::new(counting(3600)));
        let project = Project::parse("a").unwrap();
        let asking: Vec<_> = (0..1000)
            .map(|_| {
                let (cache, provider, project) = (cache.clone(), provider.clone(), project.clone());
                tokio::spawn(async move {
                    cache
                        .credentials(provider.as_ref(), &project, Action::Push, || provider.issued_at)
                        .await
                        .unwrap()
                })
            })
            .collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap().registry_url, "r");
        }
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        cache.credentials(provider.as_ref(), &project, Action::Pull, || provider.issued_at).await.unwrap();
        assert_eq!(provider.asked.load(Ordering::SeqCst), 2, "pulling is another question");
    }

    #[tokio::test]
    async fn nothing_stale_is_given_out() {
        let (cache, provider) = (Cache::default(), counting(3600));
        let project = Project::parse("a").unwrap();
        let ask = async |seconds: u64| {
            let now = provider.issued_at + Duration::from_secs(seconds);
            cache.credentials(&provider, &project, Action::Push, || now).await.map_err(|e| e.to_string())
        };
        ask(0).await.unwrap();
        ask(3600 - 301).await.unwrap();
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        ask(3600 - 300).await.unwrap();
        assert_eq!(
            provider.asked.load(Ordering::SeqCst),
            2,
            "five minutes before its end it is not given any more"
        );
        assert!(ask(3600).await.unwrap_err().contains("issued an expired token"));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (cache, provider) = (Cache::default(), counting(3600));
        for n in 0..CAPACITY + 10 {
            cache.slot(&Project::parse(&format!("p{n}")).unwrap(), Action::Push);
        }
        assert!(cache.slots.lock().unwrap().len() <= CAPACITY);
        let project = Project::parse("a").unwrap();
        cache.credentials(&provider, &project, Action::Push, || provider.issued_at).await.unwrap();
    }
}

//! Issues credentials and caches them until shortly before they expire. The provider gets one
//! request at a time for each project and action, however many callers ask at once. The broker's
//! callers and the daemon's own pulls are served alike.

use crate::metrics::Metrics;
use crate::provider::{self, IssuedCredentials, ProviderError, RegistryConfig, RegistryProvider};
use api::credentials::Action;
use api::credentials::project::Project;
use oci::Reference;
use oci::https::Https;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// Cached credentials are valid for at least this long when they are handed out.
const SLACK: Duration = Duration::from_secs(5 * 60);
/// How long a provider may take, retries included.
const TIMEOUT: Duration = Duration::from_secs(45);
/// Entries that are cached; a token takes some KiB.
const CAPACITY: usize = 4096;

/// How the last request to the provider ended, and when.
#[derive(Debug)]
struct LastResult {
    ended: Instant,
    result: Result<IssuedCredentials, ProviderError>,
}

type Slot = Arc<tokio::sync::Mutex<Option<LastResult>>>;

/// Issues credentials for the projects of one registry.
#[derive(Debug)]
pub struct Issuer {
    provider: Arc<dyn RegistryProvider>,
    metrics: Arc<Metrics>,
    clock: fn() -> SystemTime,
    slots: Mutex<BTreeMap<(Project, Action), Slot>>,
}

impl Issuer {
    /// For the registry of a configuration. Makes no request to its service yet.
    ///
    /// # Errors
    /// As for [`RegistryConfig::check`].
    pub async fn from_config(
        config: &RegistryConfig,
        https: &Https,
    ) -> Result<Issuer, ProviderError> {
        config.check().await?;
        Ok(Issuer::new(
            provider::from_config(config, https).await,
            SystemTime::now,
        ))
    }

    fn new(provider: Arc<dyn RegistryProvider>, clock: fn() -> SystemTime) -> Issuer {
        Issuer {
            provider,
            metrics: Arc::default(),
            clock,
            slots: Mutex::default(),
        }
    }

    /// What was issued so far, and how fast.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The projects that an image may belong to, likeliest first; none if there are no credentials
    /// to pull it with.
    pub fn projects_of(&self, image: &Reference) -> Vec<Project> {
        self.provider.projects_of(image)
    }

    /// Removes all credentials from the cache: for operators who revoked some.
    pub fn invalidate(&self) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Removes those for one project and action: for when the registry rejected them.
    pub fn invalidate_one(&self, project: &Project, action: Action) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(project.clone(), action));
    }

    /// Credentials for one project: cached ones that are valid for at least five more minutes, or
    /// new ones, which take at most 45 seconds.
    ///
    /// The request to the provider goes on if the returned future is dropped, and its result is
    /// shared by all callers who wait for it.
    ///
    /// # Errors
    /// The provider issued none. Errors are not cached: the next call asks again.
    pub async fn credentials(
        &self,
        project: &Project,
        action: Action,
    ) -> Result<IssuedCredentials, ProviderError> {
        let arrived = Instant::now();
        let mut slot = self.slot(project, action).lock_owned().await;
        match &*slot {
            Some(LastResult {
                result: Ok(issued), ..
            }) if is_fresh(issued, (self.clock)()) => {
                self.metrics.cached(action);
                return Ok(issued.clone());
            }
            // Callers who waited for a request share its result, failures too: otherwise a thousand
            // of them would ask one after the other.
            Some(LastResult { result, ended }) if *ended >= arrived => return result.clone(),
            _ => {}
        }
        *slot = None;
        let (provider, metrics, clock) = (self.provider.clone(), self.metrics.clone(), self.clock);
        let project = project.clone();
        // In a task of its own: a caller that hangs up neither wastes what others wait for, nor
        // leaves the service with half of something.
        let issuing = tokio::spawn(async move {
            let began = Instant::now();
            let result = issue(provider.as_ref(), &project, action, clock).await;
            let ended = Instant::now();
            metrics.asked(action, result.as_ref().err(), ended.duration_since(began));
            *slot = Some(LastResult {
                ended,
                result: result.clone(),
            });
            result
        });
        issuing
            .await
            .unwrap_or_else(|e| Err(ProviderError::unavailable(e.to_string())))
    }

    fn slot(&self, project: &Project, action: Action) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= CAPACITY {
            // Only those that callers wait for stay.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry((project.clone(), action)).or_default().clone()
    }
}

async fn issue(
    provider: &dyn RegistryProvider,
    project: &Project,
    action: Action,
    clock: fn() -> SystemTime,
) -> Result<IssuedCredentials, ProviderError> {
    let issued = timeout(TIMEOUT, provider.issue(project, action))
        .await
        .map_err(|_| ProviderError::timed_out("the registry's service did not answer in time"))??;
    // They would fail in the middle of a push.
    if issued.expires_at.is_some_and(|at| at <= clock()) {
        return Err(ProviderError::IssuedExpired);
    }
    Ok(issued)
}

/// Credentials that do not expire are not cached: where they come from, they cost nothing.
fn is_fresh(issued: &IssuedCredentials, now: SystemTime) -> bool {
    issued.expires_at.is_some_and(|at| now + SLACK < at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::IssueFuture;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    const START: u64 = 1_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds)
    }

    /// A fake provider that counts; its tokens live for an hour from the start, or it fails.
    #[derive(Debug, Default)]
    struct Counting {
        asked: AtomicU32,
        fails: bool,
    }

    impl RegistryProvider for Counting {
        fn issue<'a>(&'a self, _: &'a Project, _: Action) -> IssueFuture<'a> {
            Box::pin(async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                if self.fails {
                    return Err(ProviderError::denied("no"));
                }
                Ok(IssuedCredentials {
                    registry_url: "r".to_owned(),
                    login: None,
                    expires_at: Some(at(3600)),
                })
            })
        }

        fn projects_of(&self, _: &Reference) -> Vec<Project> {
            Vec::new()
        }
    }

    fn issuer(fails: bool, clock: fn() -> SystemTime) -> (Arc<Issuer>, Arc<Counting>) {
        let provider = Arc::new(Counting {
            fails,
            ..Counting::default()
        });
        (Arc::new(Issuer::new(provider.clone(), clock)), provider)
    }

    async fn a_thousand(issuer: &Arc<Issuer>) -> Vec<Result<IssuedCredentials, ProviderError>> {
        let project = Project::parse("a").unwrap();
        let ask = || {
            let (issuer, project) = (issuer.clone(), project.clone());
            tokio::spawn(async move { issuer.credentials(&project, Action::Push).await })
        };
        let asking: Vec<_> = (0..1000).map(|_| ask()).collect();
        let mut results = Vec::new();
        for asked in asking {
            results.push(asked.await.unwrap());
        }
        results
    }

    #[tokio::test]
    async fn a_thousand_requests_at_once_are_one_upstream() {
        let (issuer, provider) = issuer(false, || at(0));
        assert!(a_thousand(&issuer).await.iter().all(Result::is_ok));
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        issuer
            .credentials(&Project::parse("a").unwrap(), Action::Pull)
            .await
            .unwrap();
        assert_eq!(
            provider.asked.load(Ordering::SeqCst),
            2,
            "pulling is another request"
        );
    }

    #[tokio::test]
    async fn those_who_waited_share_a_failure_and_the_next_one_asks_again() {
        let (issuer, provider) = issuer(true, || at(0));
        assert!(a_thousand(&issuer).await.iter().all(Result::is_err));
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
        issuer
            .credentials(&Project::parse("a").unwrap(), Action::Push)
            .await
            .unwrap_err();
        assert_eq!(provider.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_does_not_stop_the_request() {
        let (issuer, provider) = issuer(false, || at(0));
        let project = Project::parse("a").unwrap();
        let asking = issuer.credentials(&project, Action::Push);
        assert!(timeout(Duration::from_millis(10), asking).await.is_err());
        issuer.credentials(&project, Action::Push).await.unwrap();
        assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn nothing_stale_is_given_out() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let (issuer, provider) = issuer(false, || at(NOW.load(Ordering::SeqCst)));
        let project = Project::parse("a").unwrap();
        let ask = async |seconds: u64| {
            NOW.store(seconds, Ordering::SeqCst);
            issuer.credentials(&project, Action::Push).await
        };
        let asked = || provider.asked.load(Ordering::SeqCst);
        ask(0).await.unwrap();
        ask(3600 - 301).await.unwrap();
        assert_eq!(asked(), 1);
        ask(3600 - 300).await.unwrap();
        assert_eq!(
            asked(),
            2,
            "five minutes before its end it is not given any more"
        );
        assert_eq!(ask(3600).await, Err(ProviderError::IssuedExpired));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (issuer, _) = issuer(false, || at(0));
        for n in 0..CAPACITY + 10 {
            issuer.slot(&Project::parse(&format!("p{n}")).unwrap(), Action::Push);
        }
        assert!(issuer.slots.lock().unwrap().len() <= CAPACITY);
        issuer
            .credentials(&Project::parse("a").unwrap(), Action::Push)
            .await
            .unwrap();
    }
}

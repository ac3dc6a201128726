//! The thread that owns the NSM, and how tasks ask it.

use super::queue::{Answer, Busy, Call, Lane, Queue, Request};
use super::{Nsm, NsmError, Question};
use bytes::Bytes;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longer than any honest call; the thread itself may hang for longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Others, or the requester itself, asked too much.
    #[error("too many requests; try again in {} s", seconds(.0))]
    Busy(Duration),
    #[error(transparent)]
    Nsm(#[from] Arc<NsmError>),
    #[error("the NSM does not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Rounded up.
pub(crate) fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

impl Shared {
    /// Held for a look at the queue and never for a call.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until there is a call to make.
    fn next(&self) -> Call {
        let mut queue = self.queue();
        loop {
            if let Some(call) = queue.pop() {
                return call;
            }
            queue = self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread before it runs: requests wait for it.
pub(crate) struct Thread<N> {
    nsm: N,
    shared: Arc<Shared>,
}

/// One lane's end of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    lane: Lane,
    shared: Arc<Shared>,
}

/// Whoever has the NSM now hands it to the thread. `Requester` for the agent's own lane; the others
/// are made of it.
pub(crate) fn queue<N: Nsm + 'static>(nsm: N) -> (Requester, Thread<N>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::new()),
        work: Condvar::new(),
    });
    let lane = Lane::Agent;
    let requester = Requester {
        lane,
        shared: shared.clone(),
    };
    (requester, Thread { nsm, shared })
}

impl<N: Nsm + 'static> Thread<N> {
    /// Runs until the enclave ends. It takes no lock but the queue's and the allocator's, which
    /// musl's fork leaves free in the child, so that other programs can be started beside it.
    pub(crate) fn start(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("nsm".to_owned());
        thread.spawn(move || {
            loop {
                let Call {
                    origin,
                    request,
                    waiting,
                } = self.shared.next();
                let answer: Answer = match request {
                    Request::Attest(question) => self.nsm.attest(origin, question),
                    Request::Extend { register, data } => {
                        self.nsm.extend(u16::from(register), data)
                    }
                    Request::Lock { register } => {
                        self.nsm.lock(u16::from(register)).map(|()| Vec::new())
                    }
                }
                .map(Bytes::from)
                .map_err(Arc::new);
                for waiting in waiting {
                    // One that has gone away meanwhile needs no answer.
                    waiting.send(answer.clone()).ok();
                }
            }
        })?;
        Ok(())
    }
}

impl Requester {
    /// The same queue in another lane.
    pub(crate) fn in_lane(&self, lane: Lane) -> Requester {
        Requester {
            lane,
            shared: self.shared.clone(),
        }
    }

    /// A fresh document, tagged with the lane's origin.
    pub(crate) async fn attest(&self, question: Question) -> Result<Bytes, AskError> {
        self.ask(Request::Attest(question)).await
    }

    /// What the register became.
    pub(crate) async fn extend(&self, register: u8, data: Vec<u8>) -> Result<Bytes, AskError> {
        self.ask(Request::Extend { register, data }).await
    }

    pub(crate) async fn lock(&self, register: u8) -> Result<(), AskError> {
        self.ask(Request::Lock { register }).await.map(drop)
    }

    async fn ask(&self, request: Request) -> Result<Bytes, AskError> {
        let pushed = self.shared.queue().push(self.lane, request, Instant::now());
        let answer = pushed.map_err(|Busy(wait)| AskError::Busy(wait))?;
        self.shared.work.notify_one();
        match timeout(TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) | Err(_) => Err(AskError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Description;
    use super::*;
    use attestation::Origin;
    use std::sync::mpsc;

    /// Answers when it is let to, with what it was asked.
    struct Slow {
        asked: Mutex<mpsc::Sender<String>>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Slow {
        fn call(&self, what: String) -> Result<Vec<u8>, NsmError> {
            self.asked.lock().unwrap().send(what.clone()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
            Ok(what.into_bytes())
        }
    }

    impl Nsm for Slow {
        fn attest(&self, origin: Origin, question: Question) -> Result<Vec<u8>, NsmError> {
            self.call(format!("attest {origin} {:?}", question.nonce))
        }
        fn random(&self) -> Result<Vec<u8>, NsmError> {
            unreachable!("no lane asks for random numbers")
        }
        fn extend(&self, register: u16, _: Vec<u8>) -> Result<Vec<u8>, NsmError> {
            self.call(format!("extend {register}"))
        }
        fn lock(&self, _: u16) -> Result<(), NsmError> {
            Err(NsmError::NotLocked)
        }
        fn lock_below(&self, _: u16) -> Result<(), NsmError> {
            unreachable!("no lane locks many")
        }
        fn describe(&self) -> Result<Description, NsmError> {
            unreachable!("no lane asks for a description")
        }
    }

    fn start() -> (Requester, mpsc::Receiver<String>, mpsc::Sender<()>) {
        let (asked, calls) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let (asked, go_on) = (Mutex::new(asked), Mutex::new(go_on));
        let (requester, thread) = queue(Slow { asked, go_on });
        thread.start().unwrap();
        (requester, calls, go)
    }

    #[tokio::test]
    async fn a_call_that_takes_its_time_holds_up_no_task() {
        let (requester, calls, go) = start();
        let endpoint = requester.in_lane(Lane::Endpoint);
        let asking = tokio::spawn(async move { endpoint.attest(Question::default()).await });
        tokio::task::yield_now().await;
        assert_eq!(calls.recv().unwrap(), "attest endpoint None");
        // This task runs on the one thread of this runtime while the call is being made.
        assert!(!asking.is_finished());
        go.send(()).unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), "attest endpoint None");
    }

    #[tokio::test]
    async fn questions_that_meet_in_the_queue_are_one_call() {
        let (requester, calls, go) = start();
        let ask = |nonce: u8| {
            let workload = requester.in_lane(Lane::Workload);
            tokio::spawn(async move {
                let nonce = Some(vec![nonce]);
                let question = Question {
                    nonce,
                    ..Question::default()
                };
                workload.attest(question).await.unwrap()
            })
        };
        let first = ask(1);
        tokio::task::yield_now().await;
        assert_eq!(calls.recv().unwrap(), "attest workload Some([1])");
        let met = [ask(2), ask(2), ask(2)];
        tokio::task::yield_now().await;
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        assert_eq!(first.await.unwrap(), "attest workload Some([1])");
        for asking in met {
            assert_eq!(asking.await.unwrap(), "attest workload Some([2])");
        }
        assert_eq!(calls.recv().unwrap(), "attest workload Some([2])");
        assert!(calls.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_error_of_the_nsm_reaches_its_requester() {
        let (requester, ..) = start();
        let error = requester.in_lane(Lane::Workload).lock(17).await;
        let Err(AskError::Nsm(error)) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(*error, NsmError::NotLocked));
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (millis, expected) in [(0, 0), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(seconds(&Duration::from_millis(millis)), expected);
        }
    }
}

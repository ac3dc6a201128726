//! Which request the NSM gets next. No I/O: the [`thread`](super::thread) takes from here.

use super::{NsmError, Question};
use crate::bucket::Bucket;
use attestation::Origin;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The most requests that wait in a lane: as many as its listener serves connections, each of which
/// has one. A call takes 4 ms in QEMU (measured), so the last waits a quarter of a second.
const LIMIT: usize = 64;
/// How soon there is room in a full lane.
const FULL: Duration = Duration::from_secs(1);

/// Who asks. Each has its own queue and its own share, so that strangers take nothing from the
/// workload, and neither takes the clock from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The agent, once a minute. Goes first.
    Agent,
    /// The workload's socket.
    Workload,
    /// Any client of the public endpoint.
    Endpoint,
}

impl Lane {
    /// What its documents are tagged with.
    pub(super) fn origin(self) -> Origin {
        match self {
            Lane::Agent => Origin::Agent,
            Lane::Workload => Origin::Workload,
            Lane::Endpoint => Origin::Endpoint,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Attest(Question),
    Extend { register: u8, data: Vec<u8> },
    Lock { register: u8 },
}

impl Request {
    /// Whether one call can answer both: two documents with the same content are as good as one,
    /// while to extend a register twice is not to extend it once.
    fn is_answered_with(&self, other: &Request) -> bool {
        matches!(self, Request::Attest(_)) && self == other
    }
}

/// Several requesters may get the same one.
pub(super) type Answer = Result<bytes::Bytes, Arc<NsmError>>;

/// One call, and who waits for it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) origin: Origin,
    pub(super) request: Request,
    pub(super) waiting: Vec<oneshot::Sender<Answer>>,
}

/// A lane has no room or no share left for so long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy(pub(super) Duration);

#[derive(Debug)]
struct Share {
    bucket: Option<Bucket>,
    calls: VecDeque<Call>,
}

#[derive(Debug)]
pub(super) struct Queue {
    agent: Share,
    workload: Share,
    endpoint: Share,
    /// Whose turn it is of the last two.
    workload_is_next: bool,
}

impl Queue {
    /// With 4 ms a call, the shares are two fifths and a twelfth of what the NSM can do: what
    /// everyone asks for is less than half. Where a call takes longer, the lanes take turns.
    pub(super) fn new() -> Queue {
        let share = |bucket| Share {
            bucket,
            calls: VecDeque::new(),
        };
        Queue {
            agent: share(None),
            workload: share(Some(Bucket::new(100, 100))),
            endpoint: share(Some(Bucket::new(20, 40))),
            workload_is_next: true,
        }
    }

    fn share(&mut self, lane: Lane) -> &mut Share {
        match lane {
            Lane::Agent => &mut self.agent,
            Lane::Workload => &mut self.workload,
            Lane::Endpoint => &mut self.endpoint,
        }
    }

    /// Takes a request in. One that a waiting call answers costs no call and nothing of the share.
    pub(super) fn push(
        &mut self,
        lane: Lane,
        request: Request,
        now: Instant,
    ) -> Result<oneshot::Receiver<Answer>, Busy> {
        let Share { bucket, calls } = self.share(lane);
        let (sender, receiver) = oneshot::channel();
        let same = |call: &&mut Call| call.request.is_answered_with(&request);
        if let Some(call) = calls.iter_mut().find(same) {
            call.waiting.push(sender);
            return Ok(receiver);
        }
        if calls.len() >= LIMIT {
            return Err(Busy(FULL));
        }
        if let Some(bucket) = bucket {
            bucket.take(now).map_err(Busy)?;
        }
        calls.push_back(Call {
            origin: lane.origin(),
            request,
            waiting: vec![sender],
        });
        Ok(receiver)
    }

    /// The next call that anyone still waits for.
    pub(super) fn pop(&mut self) -> Option<Call> {
        let (first, second) = if self.workload_is_next {
            (Lane::Workload, Lane::Endpoint)
        } else {
            (Lane::Endpoint, Lane::Workload)
        };
        [Lane::Agent, first, second].into_iter().find_map(|lane| {
            let call = self.share(lane).next()?;
            if lane != Lane::Agent {
                self.workload_is_next = lane == Lane::Endpoint;
            }
            Some(call)
        })
    }
}

impl Share {
    fn next(&mut self) -> Option<Call> {
        loop {
            let call = self.calls.pop_front()?;
            if call.waiting.iter().any(|waiting| !waiting.is_closed()) {
                return Some(call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attest(nonce: u8) -> Request {
        Request::Attest(Question {
            nonce: Some(vec![nonce]),
            ..Question::default()
        })
    }

    fn extend() -> Request {
        Request::Extend {
            register: 17,
            data: vec![1],
        }
    }

    type Waiting = Vec<oneshot::Receiver<Answer>>;

    fn queue(requests: impl IntoIterator<Item = (Lane, Request)>) -> (Queue, Waiting) {
        let mut queue = Queue::new();
        let now = Instant::now();
        let push = |(lane, request)| queue.push(lane, request, now).unwrap();
        let waiting = requests.into_iter().map(push).collect();
        (queue, waiting)
    }

    #[test]
    fn equal_questions_are_one_call_and_others_are_not() {
        let mut key = Question {
            nonce: Some(vec![1]),
            ..Question::default()
        };
        key.public_key = Some(vec![1]);
        let (mut queue, mut waiting) = queue([
            (Lane::Endpoint, attest(1)),
            (Lane::Endpoint, attest(2)),
            (Lane::Endpoint, attest(1)),
            (Lane::Endpoint, Request::Attest(key)),
            // Another origin, so another document.
            (Lane::Workload, attest(1)),
        ]);
        let mut calls: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let asked: Vec<_> = calls.iter().map(|call| call.waiting.len()).collect();
        assert_eq!(asked, [1, 2, 1, 1]);
        let both = calls.remove(1);
        for waiting in both.waiting {
            waiting.send(Ok(bytes::Bytes::from_static(b"one"))).unwrap();
        }
        for index in [0, 2] {
            let answer = waiting[index].try_recv().unwrap().unwrap();
            assert_eq!(&*answer, b"one");
        }
    }

    #[test]
    fn two_equal_extensions_are_two() {
        let (mut queue, _waiting) = queue([(Lane::Workload, extend()), (Lane::Workload, extend())]);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 2);
    }

    #[test]
    fn lanes_take_turns_and_the_agent_goes_first() {
        let (mut queue, _waiting) = queue([
            (Lane::Endpoint, attest(1)),
            (Lane::Endpoint, attest(2)),
            (Lane::Endpoint, attest(3)),
            (Lane::Workload, attest(1)),
            (Lane::Workload, attest(2)),
            (Lane::Agent, attest(1)),
        ]);
        let origins: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|call| call.origin)
            .collect();
        let (workload, endpoint) = (Origin::Workload, Origin::Endpoint);
        let turns = [workload, endpoint, workload, endpoint, endpoint];
        assert_eq!(origins, [&[Origin::Agent][..], &turns].concat());
    }

    #[test]
    fn a_full_lane_refuses_and_the_others_do_not() {
        let full = (0..64).map(|nonce| (Lane::Workload, attest(nonce)));
        let (mut queue, _waiting) = queue(full);
        let now = Instant::now();
        let refused = queue.push(Lane::Workload, attest(64), now);
        assert_eq!(refused.unwrap_err(), Busy(FULL));
        // No more calls than before: this one joins.
        assert!(queue.push(Lane::Workload, attest(63), now).is_ok());
        assert!(queue.push(Lane::Endpoint, attest(64), now).is_ok());
        assert!(queue.push(Lane::Agent, attest(64), now).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_has_used_its_share_up_is_refused_until_there_is_some() {
        let mut queue = Queue::new();
        let mut push = |lane, nonce| {
            let receiver = queue.push(lane, attest(nonce), Instant::now())?;
            queue.pop();
            drop(receiver);
            Ok::<(), Busy>(())
        };
        for (lane, burst) in [(Lane::Endpoint, 40), (Lane::Workload, 100)] {
            let taken = (0..200).take_while(|nonce| push(lane, *nonce).is_ok());
            assert_eq!(taken.count(), burst, "{lane:?}");
        }
        let agent = (0..200).filter(|nonce| push(Lane::Agent, *nonce).is_ok());
        assert_eq!(agent.count(), 200);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(push(Lane::Endpoint, 1), Ok(()));
        let refused = push(Lane::Endpoint, 2);
        assert_eq!(refused, Err(Busy(Duration::from_millis(50))));
        assert_eq!(push(Lane::Workload, 1), Ok(()));
    }

    #[test]
    fn a_call_that_no_one_waits_for_any_more_is_not_made() {
        let (mut queue, mut waiting) =
            queue([(Lane::Endpoint, attest(1)), (Lane::Endpoint, attest(2))]);
        waiting.remove(0);
        assert_eq!(queue.pop().unwrap().request, attest(2));
        assert!(queue.pop().is_none());
    }
}

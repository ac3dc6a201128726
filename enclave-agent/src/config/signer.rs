//! How the request to KMS gets its signature: the agent has no AWS credentials, so its host signs,
//! over the control connection. The connection belongs to the boot, and requests are made deep
//! inside the SDK: between them lies a channel.

use std::io;
use tokio::sync::{mpsc, oneshot};
use wire::kms::{SignRefusal, SignedHeaders};

/// Asks for signatures.
#[derive(Debug, Clone)]
pub(crate) struct Signer(mpsc::Sender<Unsigned>);

/// A body that waits for its signature.
#[derive(Debug)]
pub(crate) struct Unsigned {
    pub(crate) body: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The host's answer, or why there is none.
pub(crate) type Answer = io::Result<Result<SignedHeaders, SignRefusal>>;

/// Where requests are signed, and where they wait for it.
pub(crate) fn channel() -> (Signer, mpsc::Receiver<Unsigned>) {
    let (sender, receiver) = mpsc::channel(1);
    (Signer(sender), receiver)
}

impl Signer {
    /// Waits for the host.
    pub(super) async fn sign(&self, body: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the boot has ended");
        let sent = self.0.send(Unsigned { body, answer }).await;
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

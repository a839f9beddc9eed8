//! Verbs that open a way into a task: what they have in common.

mod cp;
mod exec;
mod forward;
pub(super) mod terminal;

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use gossip::wire::stream::{self, Part, WINDOW};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

pub(super) use self::{cp::cp, exec::exec, forward::port_forward};
use crate::failure::Failure;

/// What waits to be sent, in parts.
const AHEAD: usize = 4;

/// What is sent to the node, by whoever has something to send. When the last of its senders is gone the node learns that
/// this side has hung up.
fn mouth(mut to: Box<dyn AsyncWrite + Send + Unpin>) -> (mpsc::Sender<Part>, JoinHandle<()>) {
    let (say, mut said) = mpsc::channel::<Part>(AHEAD);
    let sending = tokio::spawn(async move {
        while let Some(part) = said.recv().await {
            // Who takes no more says why in his own parts.
            if stream::write(&mut to, &part).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    });
    (say, sending)
}

/// How many bytes of input may be sent yet.
#[derive(Clone)]
struct Credit(Arc<(Mutex<usize>, Condvar)>);

impl Credit {
    fn new() -> Credit {
        Credit(Arc::new((Mutex::new(WINDOW), Condvar::new())))
    }

    /// Waits until so many may be sent. Blocking.
    fn take(&self, bytes: usize) {
        let (left, more) = &*self.0;
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left < bytes {
            left = more.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= bytes;
    }

    fn give(&self, bytes: u32) {
        let (left, more) = &*self.0;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += bytes as usize;
        more.notify_all();
    }
}

/// The node, or the way to it, is gone in the middle.
fn broken(why: &str) -> Failure {
    Failure::Lost { place: "the node".to_owned(), why: why.to_owned(), waited_s: 0 }
}

//! Everything that reads what others send, called with the same bytes. Shared by the fuzzer and the replay of its corpus.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use foca::Header;
use gossip::{
    frame::{self, FrameError},
    membership::{Input, Membership, Output},
    peer::Peer,
    token::Token,
    wire::{
        Exchange, FromAgent, Hello, Reply, Request, ToAgent, Welcome,
        ask::{Passed, Question, Told},
        join::{Join, Joined},
    },
};
use placement::ids::NodeId;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) fn receive(bytes: &[u8]) {
    frames::<Request>(bytes);
    frames::<Reply>(bytes);
    frames::<Hello>(bytes);
    frames::<Welcome>(bytes);
    frames::<ToAgent>(bytes);
    frames::<FromAgent>(bytes);
    frames::<Exchange>(bytes);
    frames::<Question>(bytes);
    frames::<Passed>(bytes);
    frames::<Told>(bytes);
    frames::<Join>(bytes);
    frames::<Joined>(bytes);
    datagram(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = text.parse::<Token>()
    {
        assert_eq!(token.to_string(), text.trim());
    }
}

/// A stream of frames: each is a message that can be sent on, until one is not.
fn frames<T: Serialize + DeserializeOwned>(mut bytes: &[u8]) {
    while let Ok(Some(message)) = read::<T>(&mut bytes) {
        let sent = frame::encode(&message).expect("what was read can be written");
        assert!(matches!(read::<T>(&mut sent.as_slice()), Ok(Some(_))), "what was written can be read");
    }
}

/// Bytes in memory are always there.
fn read<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<Option<T>, FrameError> {
    match pin!(frame::read(bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("memory never waits"),
    }
}

/// A membership message, from the node that it says it is from: the certificate allows any member to send any bytes.
fn datagram(bytes: &[u8]) {
    let from =
        postcard::take_from_bytes::<Header<Peer>>(bytes).map_or(NodeId(2), |(header, _)| header.src.id);
    // As the datagrams of the corpus have it.
    let me = Peer::new(NodeId(1), ([10, 0, 0, 2], 7946).into(), 1);
    let mut membership = Membership::new(me, 0, Duration::ZERO);
    for second in 0..3 {
        // Again, as a network may.
        let inputs = [Input::Datagram { from, bytes: bytes.to_vec() }, Input::Wake];
        for output in
            inputs.into_iter().flat_map(|input| membership.handle(input, Duration::from_secs(second)))
        {
            if let Output::Datagram { bytes, to } = output {
                assert!(bytes.len() <= 1150 && to.id != me.id);
            }
        }
    }
    assert!(membership.members().all(|peer| peer.id != me.id));
}

//! `covey port-forward`.

use std::{
    future::{Future, poll_fn},
    net::Ipv4Addr,
    pin::Pin,
    task::Poll,
};

use gossip::{
    client::Ways,
    wire::{
        Call,
        stream::{Part, Parts, WINDOW},
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::ctrl_c,
    sync::Semaphore,
};

use super::{broken, mouth};
use crate::{
    args::reach::{Mapping, PortForward},
    failure::Failure,
    names::TaskName,
    output::{Out, shown},
    session::Session,
};

/// Of a connection's bytes at once.
const PIECE: usize = 32 << 10;

type Carrying<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

pub(in crate::commands) async fn port_forward(
    args: PortForward,
    session: &Session,
    out: &mut Out,
) -> Result<(), Failure> {
    let TaskName { job, index } = args.task.clone();
    // Whoever misspells it learns that now, and not from a connection.
    let task = session.ask(Call::Task { job, index }).await?;
    let mut listeners = Vec::new();
    for mapping in args.ports {
        if mapping.port.parse::<u16>().is_err() && task["ports"].get(&mapping.port).is_none() {
            let names =
                task["ports"].as_object().into_iter().flatten().map(|(name, _)| shown(name).into_owned());
            let names: Vec<String> = names.collect();
            return Err(Failure::Arguments(format!(
                "{} has no port called `{}`: it has {}",
                args.task,
                mapping.port,
                if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") }
            )));
        }
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, mapping.local)).await;
        let listener = listen.map_err(|source| Failure::Listen { port: mapping.local, source })?;
        let address =
            listener.local_addr().map_err(|source| Failure::Listen { port: mapping.local, source })?;
        if out.json() {
            out.document(
                &json!({"address": address.to_string(), "task": args.task.to_string(), "port": mapping.port}),
            )?;
        } else {
            out.text(&format!("{address} leads to port {} of {}", mapping.port, args.task))?;
        }
        listeners.push((listener, mapping));
    }
    let mut carrying: Vec<Carrying<'_>> = Vec::new();
    loop {
        tokio::select! {
            (stream, mapping) = accept(&listeners) => {
                carrying.push(Box::pin(carry(session, &args.task, mapping, stream)));
            }
            () = all(&mut carrying) => {}
            _ = ctrl_c() => return Ok(()),
        }
    }
}

/// The next connection to any of them.
async fn accept(listeners: &[(TcpListener, Mapping)]) -> (TcpStream, &Mapping) {
    poll_fn(|cx| {
        for (listener, mapping) in listeners {
            // One that cannot be accepted is its own misfortune.
            while let Poll::Ready(accepted) = listener.poll_accept(cx) {
                if let Ok((stream, _)) = accepted {
                    return Poll::Ready((stream, mapping));
                }
            }
        }
        Poll::Pending
    })
    .await
}

/// Lets all connections go on; never returns.
async fn all(carrying: &mut Vec<Carrying<'_>>) {
    poll_fn(|cx| {
        carrying.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        Poll::Pending
    })
    .await
}

async fn carry(session: &Session, task: &TaskName, mapping: &Mapping, stream: TcpStream) {
    let TaskName { job, index } = task.clone();
    let call = Call::Forward { job, index, port: mapping.port.clone() };
    let done = match session.open(call).await {
        Ok((_, ways)) => both_ways(ways, stream).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = done {
        // The others go on.
        say!("{}", failure.explain(&format!("carry a connection to {task}")));
    }
}

async fn both_ways((from, to): Ways, stream: TcpStream) -> Result<(), Failure> {
    let (mut read, mut write) = stream.into_split();
    let (say, _sending) = mouth(to);
    let credit = Semaphore::new(WINDOW);
    let up = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => {
                    if let Ok(taken) = credit.acquire_many(length as u32).await {
                        taken.forget();
                    }
                    if say.send(Part::In(buffer[..length].to_vec())).await.is_err() {
                        return std::future::pending().await;
                    }
                }
                // Whoever connected has gone: so does the connection.
                Err(_) => return Ok(()),
            }
        }
        let _ = say.send(Part::InEnd).await;
        std::future::pending().await
    };
    let down = async {
        let mut parts = Parts::new(from);
        loop {
            match parts.next().await {
                Ok(Some(Part::Out(bytes))) => {
                    if write.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Some(Part::OutEnd)) => drop(write.shutdown().await),
                Ok(Some(Part::Taken(bytes))) => credit.add_permits(bytes as usize),
                Ok(Some(Part::End(_))) => return Ok(()),
                Ok(Some(Part::Failed(refusal))) => return Err(refusal.into()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(broken("it closed the connection")),
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
    };
    tokio::select! { done = up => done, done = down => done }
}

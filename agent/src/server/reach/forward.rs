//! `covey port-forward`: a connection to a port of a task, in whose network it is made.

use gossip::wire::stream::Part;
use oci::{container::Live, dial::dial};
use placement::ledger::Refusal;
use serde_json::json;
use tokio::{net::TcpStream, task::spawn_blocking};

use super::{
    About, Here, Incoming,
    carry::{self, As, drain, feed},
    exec::broke_off,
};
use crate::server::{Out, Services, Stopped};

pub(super) async fn forward(
    services: &Services,
    here: &Here,
    by: &str,
    port: &str,
    read: Incoming<'_>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let About { job, index } = &here.about;
    let number = number(services, here, port).await?;
    let bundle = here.bundle.clone();
    let dialled = spawn_blocking(move || {
        let live = Live::find(&bundle).ok().flatten().and_then(|live| live.state);
        let init = live.ok_or(std::io::ErrorKind::NotFound)?.init;
        let stream = dial(&init, number)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    let dialled = dialled.await.map_err(|_| broke_off())?.and_then(TcpStream::from_std);
    let stream = dialled.map_err(|error| Refusal {
        code: "failed".into(),
        message: match error.kind() {
            std::io::ErrorKind::NotFound => format!("{job}/{index} does not run any more"),
            std::io::ErrorKind::ConnectionRefused => {
                format!("nothing listens on port {number} of {job}/{index}")
            }
            _ => format!("cannot connect to port {number} of {job}/{index}: {error}"),
        },
        hint: Some(format!(
            "covey task {job}/{index} shows its ports, covey logs {job}/{index} whether it is up"
        )),
    })?;
    here.note(services, "port_forward", format!("{by} connects to port {number}"));
    out.item(json!({"node": here.node, "port": number})).await?;

    let (say, said) = carry::saying();
    let (inlet, input) = carry::input();
    let (from, to) = stream.into_split();
    let carrying = async {
        let all_out = async {
            drain(from, Part::Out, say.clone()).await;
            let _ = say.send(Part::OutEnd).await;
        };
        tokio::join!(all_out, feed(input, to, As::Bytes, say.clone()));
        let _ = say.send(Part::End(json!({}))).await;
    };
    tokio::select! {
        _ = async { tokio::join!(carrying, carry::speak(said, out)) } => {}
        () = inlet.hear(read, |_| {}) => {}
    }
    Ok(())
}

/// A port's number in the task's network, by its name or as it is.
async fn number(services: &Services, here: &Here, port: &str) -> Result<u16, Refusal> {
    if let Ok(number) = port.parse::<u16>()
        && number != 0
    {
        return Ok(number);
    }
    let key = here.run.key;
    let known = services.node.read(move |core| core.ports_inside(key)).await.unwrap_or_default();
    known.get(port).copied().ok_or_else(|| {
        let About { job, index } = &here.about;
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Refusal {
            code: "not_found".into(),
            message: match names.is_empty() {
                true => format!("{job}/{index} has no port called `{port}`: it has none with a name"),
                false => format!("{job}/{index} has no port called `{port}`: it has {}", names.join(", ")),
            },
            hint: Some("a port's number does as well".into()),
        }
    })
}

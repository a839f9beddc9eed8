//! What is wrong with the cell. Exit 1 if something is.

use gossip::wire::Call;

use crate::{
    failure::Failure,
    output::{self, Out},
    session::Session,
};

pub(super) async fn doctor(session: &Session, out: &mut Out) -> Result<(), Failure> {
    let document = session.ask(Call::Doctor).await?;
    out.either(&document, output::doctor)?;
    let wrong = document["items"].as_array().into_iter().flatten();
    let wrong = wrong.filter(|finding| finding["weight"] == "wrong").count();
    if wrong == 0 { Ok(()) } else { Err(Failure::Unwell { wrong }) }
}

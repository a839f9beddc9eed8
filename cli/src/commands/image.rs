//! Images: load, pull, ls, rm, prune; and credentials for registries.

use std::{
    io::{self, IsTerminal, Read},
    path,
};

use gossip::wire::{Call, Secret};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::{
    args::Image,
    failure::Failure,
    output::{self, Out, shown},
    session::Session,
};

pub(super) fn doing(args: &Image) -> String {
    match args {
        Image::Load { file, .. } => format!("load {}", file.display()),
        Image::Pull { reference } => format!("pull {reference}"),
        Image::Login { registry, .. } => format!("log in to {registry}"),
        Image::Logout { registry } => format!("log out of {registry}"),
        Image::Prune { .. } => "remove unused images".into(),
        Image::Ls => "list images".into(),
        Image::Rm { reference } => format!("remove image {reference}"),
    }
}

pub(super) async fn image(args: Image, session: &Session, out: &mut Out) -> Result<(), Failure> {
    match args {
        Image::Load { .. } if !session.is_local() => {
            Err(Failure::Elsewhere("an image is loaded from a file by the node that has the file"))
        }
        Image::Load { file, name } => {
            // The agent reads it, from another working directory.
            let path = path::absolute(&file)
                .map_err(|source| Failure::System { what: "tell the current directory", source })?;
            let path = path.to_str().ok_or_else(|| {
                Failure::Arguments(format!("{} is not UTF-8: give the file another name", path.display()))
            })?;
            let call = Call::ImageLoad { path: path.to_owned(), name };
            out.either(&with_bar(session, call).await?, output::images)
        }
        Image::Pull { reference } => {
            out.either(&with_bar(session, Call::ImagePull { reference }).await?, output::images)
        }
        Image::Login { registry, user, .. } => {
            let password = password()?;
            let call = Call::ImageLogin { registry, user, password };
            out.either(&session.ask(call).await?, |done| output::logged_in(done, "logged in to"))
        }
        Image::Logout { registry } => {
            let call = Call::ImageLogout { registry };
            out.either(&session.ask(call).await?, |done| output::logged_in(done, "logged out of"))
        }
        Image::Prune { older_than } => {
            let call = Call::ImagePrune { unused_ms: older_than.millis() };
            out.either(&session.ask(call).await?, output::pruned)
        }
        Image::Ls => out.either(&session.ask(Call::ImageLs).await?, output::images),
        Image::Rm { reference } => {
            let done = session.ask(Call::ImageRm { reference: reference.clone() }).await?;
            out.either(&done, |done| output::removed(done, &reference))
        }
    }
}

/// Longer ones are a mistake: a file that is none of a password.
const PASSWORD_MAX: u64 = 64 << 10;

/// From standard input; the end of its line is not part of it.
fn password() -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(PASSWORD_MAX).read_to_string(&mut text);
    read.map_err(|source| Failure::System { what: "read the password", source })?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::Arguments("there is no password on standard input".into()));
    }
    Ok(Secret(password.to_owned()))
}

async fn with_bar(session: &Session, call: Call) -> Result<Value, Failure> {
    let bar = bar();
    let answer = session
        .ask_with_progress(call, |what, done, total| {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(shown(what).into_owned());
        })
        .await;
    bar.finish_and_clear();
    answer
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}

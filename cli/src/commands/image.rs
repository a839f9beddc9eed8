//! Images on this node: load, ls, rm.

use std::{io::IsTerminal, path};

use gossip::wire::Call;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::Image,
    failure::Failure,
    output::{self, Out, shown},
    session::Session,
};

pub(super) fn doing(args: &Image) -> String {
    match args {
        Image::Load { file, .. } => format!("load {}", file.display()),
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
            let bar = bar();
            let loaded = session
                .ask_with_progress(call, |what, done, total| {
                    bar.set_length(total);
                    bar.set_position(done);
                    bar.set_message(shown(what).into_owned());
                })
                .await;
            bar.finish_and_clear();
            out.either(&loaded?, output::images)
        }
        Image::Ls => out.either(&session.ask(Call::ImageLs).await?, output::images),
        Image::Rm { reference } => {
            let done = session.ask(Call::ImageRm { reference: reference.clone() }).await?;
            out.either(&done, |done| output::removed(done, &reference))
        }
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}

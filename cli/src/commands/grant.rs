//! What users may do: shown, given and taken away.

use gossip::wire::Call;
use placement::ids::Principal;

use crate::{
    args::cell::Grant,
    failure::Failure,
    output::{self, Out},
    session::Session,
};

pub(super) async fn grant(args: Grant, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let Grant { user, rights, revoke } = args;
    match user {
        Some(user) if !rights.is_empty() || !revoke.is_empty() => {
            let (give, take) = (rights.into_iter().collect(), revoke.into_iter().collect());
            let call = Call::Grant { principal: Principal(user), give, take };
            out.either(&session.ask(call).await?, output::granted)
        }
        user => {
            let mut list = session.ask(Call::Principals).await?;
            if let (Some(user), Some(items)) = (user, list["items"].as_array_mut()) {
                items.retain(|item| item["name"] == user.as_str());
            }
            out.either(&list, output::users)
        }
    }
}

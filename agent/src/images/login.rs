//! Credentials for registries, given once for the whole cell.

use gossip::wire::image::{Credential, ImageQuestion, ImageTold, Login};
use placement::{ids::NodeId, ledger::Refusal};

use super::{Images, registry};
use crate::clock;

/// Who has heard of a change of credentials.
pub struct LoggedIn {
    pub registry: String,
    pub user: Option<String>,
    pub changed: bool,
    /// Names of the nodes that have it, and of those that did not answer: they hear of it when they are back.
    pub nodes: Vec<String>,
    pub missing: Vec<String>,
}

impl Images {
    /// Tries the credentials, and gives them to all nodes.
    pub async fn login(&self, registry: &str, login: Login) -> Result<LoggedIn, Refusal> {
        let registry = host(registry)?;
        let refused = |error: registry::RegistryError| Refusal::new(error.code(), error, None);
        self.0.registries.try_login(&registry, &login).await.map_err(refused)?;
        let user = Some(login.user.clone());
        self.change_login(registry, Some(login), user).await
    }

    /// Takes the cell's credentials for a registry away, on all nodes.
    pub async fn logout(&self, registry: &str) -> Result<LoggedIn, Refusal> {
        let registry = host(registry)?;
        let Some(user) = self.0.registries.login_of(&registry) else {
            let message = format!("the cell has no credentials for {registry}");
            return Err(Refusal::new("not_found", message, None));
        };
        self.change_login(registry, None, Some(user)).await
    }

    async fn change_login(
        &self,
        registry: String,
        login: Option<Login>,
        user: Option<String>,
    ) -> Result<LoggedIn, Refusal> {
        let done = if login.is_some() { "logged in to" } else { "logged out of" };
        let known = self.0.registries.credentials().into_iter().find(|one| one.registry == registry);
        // Newer than what is known, however the clocks go.
        let set_ms = known.map_or(0, |one| one.set_ms + 1).max(clock::now().wall_ms);
        let one = Credential { registry: registry.clone(), login, set_ms };
        let changed = self.take_credentials(vec![one])?;
        self.0.journal.node(
            "registry_login",
            format!("{done} registry {registry} as {}", user.as_deref().unwrap_or("nobody")),
        );
        let (mut nodes, missing) = self.give_credentials(self.others()).await;
        nodes.push(self.name(self.0.cell.me()));
        nodes.sort();
        Ok(LoggedIn { registry, user, changed, nodes, missing })
    }

    /// Gives others all that this node has: the newest of each registry counts. Who has taken it, and who has not.
    pub(super) async fn give_credentials(&self, nodes: Vec<NodeId>) -> (Vec<String>, Vec<String>) {
        let registries = self.0.registries.credentials();
        if registries.is_empty() || nodes.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let (mut taken, mut missing) = (Vec::new(), Vec::new());
        for (node, answer) in self.ask_each(nodes, ImageQuestion::Credentials { registries }).await {
            match answer {
                Ok(ImageTold::Changed { .. }) => taken.push(self.name(node)),
                Ok(_) => missing.push(self.name(node)),
                Err(error) => {
                    tracing::info!("{} has not got the registries' credentials: {error}", self.name(node));
                    missing.push(self.name(node));
                }
            }
        }
        missing.sort();
        (taken, missing)
    }

    pub(super) fn take_credentials(&self, news: Vec<Credential>) -> Result<bool, Refusal> {
        self.0.registries.merge(news).map_err(|error| Refusal::new("invalid", error, None))
    }
}

fn host(registry: &str) -> Result<String, Refusal> {
    let host = registry::host(registry);
    // A reference has the grammar of it.
    match format!("{host}/x").parse::<oci::reference::Reference>() {
        Ok(reference) if reference.registry() == Some(host) || host == registry::DOCKER => {
            Ok(host.to_string())
        }
        _ => {
            let message = format!(
                "{registry:?} is not a registry's host[:port], for instance registry.example.org:5000"
            );
            Err(Refusal::new("invalid", message, None))
        }
    }
}

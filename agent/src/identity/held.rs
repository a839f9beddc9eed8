//! The identity while the agent runs: certificates are renewed, and the authority comes and goes with the vote.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gossip::tls::{Authority, AuthorityKey, Credentials};

use super::{AUTHORITY, Identity, IdentityError};
use crate::dir::{DataDir, read_json, remove, write_json};

/// What this node shows and, if it votes, the authority. Clones are the same one. What changes is on disk before it
/// counts.
#[derive(Clone)]
pub struct Held {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    identity: Identity,
    authority: Option<Arc<Authority>>,
}

impl Held {
    /// `identity` as it was opened in `dir`.
    pub fn new(dir: &DataDir, identity: Identity) -> Result<Held, IdentityError> {
        let authority = identity.authority(dir)?.map(Arc::new);
        let state = Arc::new(Mutex::new(State { identity, authority }));
        Ok(Held { dir: dir.path().to_path_buf(), state })
    }

    /// Nothing is half done under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub fn identity(&self) -> Identity {
        self.state().identity.clone()
    }

    /// The cell's authority, if this node holds it.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.state().authority.clone()
    }

    /// To be handed to another voter.
    pub fn authority_key(&self) -> Result<Option<AuthorityKey>, IdentityError> {
        let _unchanged = self.state();
        Ok(read_json(&self.dir.join(AUTHORITY), "an authority")?)
    }

    /// Keeps the authority: this node becomes a voter. One that is not this cell's is refused, so it does not matter who
    /// sends it.
    pub fn keep_authority(&self, key: &AuthorityKey) -> Result<(), IdentityError> {
        let mut state = self.state();
        let authority = key.open(&state.identity.cell_name).map_err(IdentityError::Make)?;
        if *authority.cell() != state.identity.cell {
            return Err(IdentityError::OtherAuthority);
        }
        write_json(&self.dir.join(AUTHORITY), key, 0o600)?;
        state.authority = Some(Arc::new(authority));
        Ok(())
    }

    /// This node votes no more, so it need not be trusted with the authority.
    pub fn drop_authority(&self) -> Result<(), IdentityError> {
        let mut state = self.state();
        remove(&self.dir.join(AUTHORITY))?;
        state.authority = None;
        Ok(())
    }

    /// Takes a new certificate of this node. One that is not for its key, or of another authority, is refused.
    pub fn renewed(&self, certificate: String) -> Result<Credentials, IdentityError> {
        let mut state = self.state();
        let new = Identity { certificate: Some(certificate), ..state.identity.clone() };
        let credentials = new.credentials().map_err(IdentityError::Make)?;
        credentials.validity().map_err(IdentityError::Make)?;
        new.write(&self.dir)?;
        state.identity = new;
        Ok(credentials)
    }
}

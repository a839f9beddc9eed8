//! Registries: what a name stands for there, manifests and blobs. Nothing that comes from one is believed: whoever takes
//! it verifies it by its digest.

mod credentials;
mod error;
mod place;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use gossip::wire::image::{Credential, Login};
use oci::{
    digest::Digest,
    manifest::{Meant, meant},
    reference::Reference,
};
use oci_client::{
    Client, RegistryOperation,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, SizedStream},
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
    secrets::RegistryAuth,
};
use tokio::time::{Instant, timeout};

pub(super) use self::credentials::{CredentialsError, host};
use self::{
    credentials::Credentials,
    error::{Asked, Why},
    place::Place,
};
pub use self::{
    error::{RegistriesError, RegistryError},
    place::{DOCKER, Settings},
};
use super::locked;

const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];
/// Indexes in an index.
const NESTING_MAX: usize = 4;
/// Asked for when credentials are tried; that it is not there is no matter.
const NOWHERE: &str = "covey/login";

/// The way to registries, with what is needed to be let in. Clones are the same.
#[derive(Clone)]
pub struct Registries(Arc<Inner>);

struct Inner {
    settings: Settings,
    roots: Vec<Certificate>,
    credentials: Credentials,
    /// Of each registry, and the user that it was made for.
    clients: Mutex<BTreeMap<String, (Option<Login>, Client)>>,
    /// What could not be had lately: not asked for again for a while.
    failed: Mutex<BTreeMap<Digest, (Instant, RegistryError)>>,
}

/// The bytes of a blob, as they come.
pub(super) struct Blob {
    stream: Pin<Box<SizedStream>>,
    /// Bytes before those that are wanted: a registry may not know how to begin in the middle.
    skip: u64,
    /// Of the whole blob, if the registry says.
    pub(super) size: Option<u64>,
    asked: Asked,
}

impl Registries {
    /// `file`: where the credentials are that were given to the cell.
    pub fn open(settings: Settings, file: &Path) -> Result<Registries, RegistriesError> {
        // What the client library takes by default. Another part of the process may have said so before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = settings.ca.iter().map(certificates).collect::<Result<Vec<_>, _>>()?;
        let credentials = Credentials::open(file, settings.auth_file.clone())?;
        Ok(Registries(Arc::new(Inner {
            settings,
            roots: roots.concat(),
            credentials,
            clients: Mutex::default(),
            failed: Mutex::default(),
        })))
    }

    /// The reference by which an image can be asked for, if its name leads to a registry.
    pub(super) fn reference(&self, name: &str) -> Option<Reference> {
        let reference: Reference = name.parse().ok()?;
        (!self.0.settings.places(&reference).is_empty()).then_some(reference)
    }

    /// The registry that the reference leads to, to show.
    pub(super) fn name(&self, reference: &Reference) -> String {
        self.0.settings.registry(reference).unwrap_or_default().to_string()
    }

    /// The manifest that the reference stands for on this machine.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        // Whoever submits a job waits for it, over mirrors and indexes.
        let patience = self.0.settings.patience * 5 / 4;
        match timeout(patience, self.resolved(reference)).await {
            Ok(resolved) => resolved,
            Err(_) => Err(RegistryError::Silent { registry: self.name(reference), patience }),
        }
    }

    async fn resolved(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        let mut wanted = reference.clone();
        for _ in 0..=NESTING_MAX {
            let document = self.manifest(&wanted).await?;
            match meant(&document) {
                Ok(Meant::This) => return Ok(Digest::of(&document)),
                Ok(Meant::Other(digest)) => wanted = wanted.with_digest(digest),
                Err(error) => {
                    return Err(RegistryError::NoImage {
                        image: reference.to_string(),
                        why: error.to_string(),
                    });
                }
            }
        }
        let why = "its index leads from index to index".to_string();
        Err(RegistryError::NoImage { image: reference.to_string(), why })
    }

    /// A manifest or an index, its digest verified if the reference has one.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
        self.each_place(reference, |place, client, auth| async move {
            let image = place.image(reference);
            let (bytes, _) = client.pull_manifest_raw(&image, &auth, &ACCEPTED).await?;
            Ok(bytes.to_vec())
        })
        .await
    }

    /// The blob from the offset `from` on.
    pub(super) async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: u64,
    ) -> Result<Blob, RegistryError> {
        let layer = &digest.to_string();
        self.each_place(reference, |place, client, auth| async move {
            let image = place.image(reference);
            client.store_auth_if_needed(image.resolve_registry(), &auth).await;
            let asked = place.asked(reference, &auth);
            let whole = |stream: SizedStream, skip| {
                let size = stream.content_length;
                Blob { stream: Box::pin(stream), skip, size, asked: asked.clone() }
            };
            if from == 0 {
                return Ok(whole(client.pull_blob_stream(&image, layer.as_str()).await?, 0));
            }
            Ok(match client.pull_blob_stream_partial(&image, layer.as_str(), from, None).await? {
                BlobResponse::Full(stream) => whole(stream, from),
                BlobResponse::Partial(stream) => {
                    let size = stream.content_length.map(|rest| rest + from);
                    Blob { size, ..whole(stream, 0) }
                }
            })
        })
        .await
    }

    /// What went wrong with it a moment ago, if it did.
    pub(super) fn lately(&self, digest: &Digest) -> Option<RegistryError> {
        let mut failed = locked(&self.0.failed);
        failed.retain(|_, (until, _)| *until > Instant::now());
        failed.get(digest).map(|(_, error)| error.clone())
    }

    /// Somebody wants to know it anew.
    pub(super) fn forgive(&self) {
        locked(&self.0.failed).clear();
    }

    pub(super) fn note_failure(&self, digest: &Digest, error: &RegistryError, quiet: Duration) {
        locked(&self.0.failed).insert(*digest, (Instant::now() + quiet, error.clone()));
    }

    /// Asks the registry whether it lets this user in.
    pub(super) async fn try_login(&self, registry: &str, login: &Login) -> Result<(), RegistryError> {
        let place = self.0.settings.place(registry);
        let client =
            self.client(&place, Some(login.clone())).map_err(|why| why.of(&place.asked_nothing()))?;
        let auth = auth(Some(login));
        let image = oci_client::Reference::with_tag(place.host.clone(), NOWHERE.into(), "latest".into());
        let tried = async {
            // A registry with a service for tokens was asked with the credentials; another only wants them with requests.
            if client.auth(&image, &auth, RegistryOperation::Pull).await?.is_none() {
                client.list_tags(&image, &auth, Some(1), None).await?;
            }
            Ok::<_, Why>(())
        };
        let asked = Asked { user: Some(login.user.clone()), ..place.asked_nothing() };
        let why = match timeout(self.0.settings.patience, tried).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why.of(&asked),
            Err(_) => Why::Silent(self.0.settings.patience).of(&asked),
        };
        match why {
            // Let in: there is only nothing to see.
            RegistryError::Unknown { .. } => Ok(()),
            why => Err(why),
        }
    }

    /// Whether anything is news. Of each registry the newest counts.
    pub(super) fn merge(&self, news: Vec<Credential>) -> Result<bool, CredentialsError> {
        let changed = self.0.credentials.merge(news)?;
        if changed {
            self.forgive();
        }
        Ok(changed)
    }

    /// All credentials that were given to the cell, and those that were taken away.
    pub(super) fn credentials(&self) -> Vec<Credential> {
        self.0.credentials.all()
    }

    /// The user of each registry that the cell has credentials for.
    pub(super) fn login_of(&self, registry: &str) -> Option<String> {
        self.0.credentials.given_to_cell(registry).map(|login| login.user)
    }

    /// Asks the mirrors, then the registry itself: the first that gives it, or what the last one said.
    async fn each_place<T, F: Future<Output = Result<T, Why>>>(
        &self,
        reference: &Reference,
        ask: impl Fn(Place, Client, RegistryAuth) -> F,
    ) -> Result<T, RegistryError> {
        let mut last = RegistryError::NoRegistry { image: reference.to_string() };
        for place in self.0.settings.places(reference) {
            let login = self.0.credentials.of(&place.host);
            let auth = auth(login.as_ref().ok().and_then(Option::as_ref));
            let asked = place.asked(reference, &auth);
            let client = login.map_err(Why::Credentials).and_then(|login| self.client(&place, login));
            let patience = self.0.settings.patience;
            let answer = match client {
                Ok(client) => match timeout(patience, ask(place, client, auth)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Why::Silent(patience)),
                },
                Err(why) => Err(why),
            };
            match answer {
                Ok(it) => return Ok(it),
                Err(why) => last = why.of(&asked),
            }
            tracing::debug!("{last}");
        }
        Err(last)
    }

    fn client(&self, place: &Place, login: Option<Login>) -> Result<Client, Why> {
        let mut clients = locked(&self.0.clients);
        if let Some((for_login, client)) = clients.get(&place.host)
            && *for_login == login
        {
            return Ok(client.clone());
        }
        let config = ClientConfig {
            protocol: if place.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            // Without TLS there is nothing to verify by, nor need there be roots on this machine.
            accept_invalid_certificates: place.plain,
            extra_root_certificates: self.0.roots.clone(),
            connect_timeout: Some(self.0.settings.patience / 2),
            read_timeout: Some(self.0.settings.patience),
            user_agent: concat!("covey/", env!("CARGO_PKG_VERSION")),
            platform_resolver: None,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(Why::Client)?;
        clients.insert(place.host.clone(), (login, client.clone()));
        Ok(client)
    }
}

impl Blob {
    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        loop {
            let Some(bytes) = self.stream.next().await else { return Ok(None) };
            let bytes = bytes.map_err(|error| Why::Broken(error).of(&self.asked))?;
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skip as u64;
            if skip < bytes.len() {
                return Ok(Some(bytes[skip..].to_vec()));
            }
        }
    }
}

fn auth(login: Option<&Login>) -> RegistryAuth {
    match login {
        Some(login) => RegistryAuth::Basic(login.user.clone(), login.password.0.clone()),
        None => RegistryAuth::Anonymous,
    }
}

/// All certificates of a file.
fn certificates(path: &PathBuf) -> Result<Vec<Certificate>, RegistriesError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let failed = |why: String| RegistriesError::Certificates { path: path.clone(), why };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text)
        .map(|der| Ok(Certificate { encoding: CertificateEncoding::Der, data: der?.to_vec() }))
        .collect::<Result<Vec<_>, rustls::pki_types::pem::Error>>()
        .map_err(|error| failed(error.to_string()))?;
    match found.is_empty() {
        true => Err(failed("it holds no certificate (PEM)".into())),
        false => Ok(found),
    }
}

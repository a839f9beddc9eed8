//! What a registry did not give, and why. No message holds a URL (some have keys in them) nor a secret.

use std::{error::Error, io, path::PathBuf, time::Duration};

use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};

use super::credentials::CredentialsError;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("the certificates of registries in {path} cannot be read: {why}")]
    Certificates { path: PathBuf, why: String },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Why a registry gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "registry {registry} cannot be reached{}: {why}. Look at its name and the network, or load the image from a file",
        if *.plain { " (plain HTTP)" } else { "" }
    )]
    Unreachable { registry: String, plain: bool, why: String },
    #[error(
        "registry {registry} did not answer within {} s. Look at it and the network, or load the image from a file",
        patience.as_secs_f32()
    )]
    Silent { registry: String, patience: Duration },
    #[error("registry {registry} {}", denied(registry, image, user))]
    Denied { registry: String, image: String, user: Option<String> },
    #[error("registry {registry} has no {image}")]
    Unknown { registry: String, image: String },
    #[error(
        "registry {registry} gives no more for now (too many requests): try again later, or log in to it"
    )]
    Limited { registry: String },
    #[error("registry {registry} failed: {why}")]
    Failed { registry: String, why: String },
    #[error("image {image} cannot be run here: {why}")]
    NoImage { image: String, why: String },
    #[error("the name {image} leads to no registry: this node's configuration has no default")]
    NoRegistry { image: String },
    #[error("registry {registry}: {why}")]
    Credentials { registry: String, why: String },
}

fn denied(registry: &str, image: &str, user: &Option<String>) -> String {
    let what = if image.is_empty() { String::new() } else { format!(" {image}") };
    match user {
        Some(user) => {
            format!("refuses{what} to user {user}: look at the name and password (covey image login)")
        }
        None => format!(
            "refuses{what} to strangers, or has none of that name: covey image login {registry} --user U --password-stdin"
        ),
    }
}

impl RegistryError {
    /// The code of a refusal for this.
    pub fn code(&self) -> &'static str {
        match self {
            RegistryError::Unknown { .. } | RegistryError::NoRegistry { .. } => "not_found",
            RegistryError::Denied { .. } => "denied",
            RegistryError::NoImage { .. } => "invalid",
            _ => "unreachable",
        }
    }
}

/// Whom what was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) registry: String,
    pub(super) plain: bool,
    pub(super) image: String,
    pub(super) user: Option<String>,
}

/// A failure, before it is known whose.
#[derive(Debug)]
pub(super) enum Why {
    Library(OciDistributionError),
    /// No client could be made.
    Client(OciDistributionError),
    /// In the middle of a blob.
    Broken(io::Error),
    Silent(Duration),
    Credentials(CredentialsError),
}

impl From<OciDistributionError> for Why {
    fn from(error: OciDistributionError) -> Why {
        Why::Library(error)
    }
}

/// Bytes of a foreign text in a message of ours.
const TEXT_MAX: usize = 300;

impl Why {
    pub(super) fn of(self, asked: &Asked) -> RegistryError {
        let Asked { registry, plain, image, user } = asked.clone();
        match self {
            Why::Silent(patience) => RegistryError::Silent { registry, patience },
            Why::Credentials(error) => RegistryError::Credentials { registry, why: error.to_string() },
            Why::Client(error) => RegistryError::Failed { registry, why: causes(&error) },
            Why::Broken(error) => {
                RegistryError::Failed { registry, why: format!("broke off: {}", causes(&error)) }
            }
            Why::Library(OciDistributionError::RequestError(error)) => {
                let error = error.without_url();
                let why = causes(&error);
                match error.is_connect() || error.is_timeout() || error.is_request() {
                    true => RegistryError::Unreachable { registry, plain, why },
                    false => RegistryError::Failed { registry, why },
                }
            }
            Why::Library(
                OciDistributionError::UnauthorizedError { .. }
                | OciDistributionError::AuthenticationFailure(_),
            ) => RegistryError::Denied { registry, image, user },
            Why::Library(OciDistributionError::RegistryError { envelope, .. }) => {
                match envelope.errors.first().map(|error| &error.code) {
                    Some(
                        OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::BlobUnknown
                        | OciErrorCode::ManifestBlobUnknown,
                    ) => RegistryError::Unknown { registry, image },
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => {
                        RegistryError::Denied { registry, image, user }
                    }
                    Some(OciErrorCode::Toomanyrequests) => RegistryError::Limited { registry },
                    _ => RegistryError::Failed { registry, why: said(&envelope) },
                }
            }
            Why::Library(OciDistributionError::ServerError { code, message, .. }) => match code {
                401 | 403 => RegistryError::Denied { registry, image, user },
                404 => RegistryError::Unknown { registry, image },
                429 => RegistryError::Limited { registry },
                _ => RegistryError::Failed { registry, why: short(format!("HTTP status {code} {message}")) },
            },
            Why::Library(OciDistributionError::DigestError(_)) => {
                let why = format!("what it gave as {image} has another digest than it said");
                RegistryError::Failed { registry, why }
            }
            Why::Library(error) => RegistryError::Failed { registry, why: short(error.to_string()) },
        }
    }
}

fn said(envelope: &OciEnvelope) -> String {
    let texts: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
    short(texts.join("; "))
}

/// The last causes say most: the first one only that something was sent.
fn causes(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many repeat their cause.
        if let Some(last) = texts.last_mut()
            && last.contains(&text)
        {
            *last = last.replace(&text, "").trim_end_matches([':', ' ']).to_string();
        }
        texts.push(text);
        next = cause.source();
    }
    texts.retain(|text| !text.is_empty());
    short(texts.join(": "))
}

fn short(text: String) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

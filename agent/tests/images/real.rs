//! A real registry (Debian's docker-registry) on loopback: with TLS of an authority of its own, and with credentials.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agent::images::registry::Settings;
use gossip::wire::{Secret, image::Login};
use oci::{content::Store, digest::Digest};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc, time::sleep};

use crate::{
    image::load,
    node::{PATIENCE, cell, cell_with},
};

/// Of `secret` (bcrypt, cost 5).
const ANN: &str = "ann:$2y$05$HEb.tDpd8mofEwKJS7G13.SeRFpTqBawXsqOwPAeGI5HBRaKP8qWa\n";

struct Registry {
    host: String,
    dir: TempDir,
    process: Child,
    ca: Option<Vec<u8>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// With TLS and credentials, or without either.
    async fn start(guarded: bool) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        // Nobody else on this machine listens where the kernel has just let us: taken again at once.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            path("content")
        );
        let mut ca = None;
        let mut host = format!("127.0.0.1:{port}");
        if guarded {
            // That leads to this machine too, but is no loopback address, for which TLS would be left out.
            host = format!("0.0.0.0:{port}");
            let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = params.self_signed(&authority_key).unwrap();
            let issuer = Issuer::new(params, authority_key);
            let own =
                CertificateParams::new(vec!["0.0.0.0".into()]).unwrap().signed_by(&key, &issuer).unwrap();
            fs::write(path("ca.pem"), authority.pem()).unwrap();
            fs::write(path("cert.pem"), own.pem()).unwrap();
            fs::write(path("key.pem"), key.serialize_pem()).unwrap();
            fs::write(path("htpasswd"), ANN).unwrap();
            ca = Some(authority.der().to_vec());
            config += &format!(
                "  tls: {{ certificate: {}, key: {} }}\nauth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
                path("cert.pem"),
                path("key.pem"),
                path("htpasswd")
            );
        }
        fs::write(path("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the registry did not start");
        Registry { host, dir, process, ca }
    }

    /// Pushes an image of a store, as any client would; its reference.
    async fn push(&self, store: &Store, image: &Digest) -> String {
        let auth = match self.ca {
            Some(_) => RegistryAuth::Basic("ann".into(), "secret".into()),
            None => RegistryAuth::Anonymous,
        };
        let root = |der: &Vec<u8>| Certificate { encoding: CertificateEncoding::Der, data: der.clone() };
        let config = ClientConfig {
            protocol: if self.ca.is_some() { ClientProtocol::Https } else { ClientProtocol::Http },
            accept_invalid_certificates: self.ca.is_none(),
            extra_root_certificates: self.ca.iter().map(root).collect(),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).unwrap();
        let to = Reference::with_tag(self.host.clone(), "team/web".into(), "1".into());
        client.auth(&to, &auth, RegistryOperation::Push).await.unwrap();
        let read = |digest: &str| {
            fs::read(store.root().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())).unwrap()
        };
        let manifest = read(&image.to_string());
        let document: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = document["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&document["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            client.push_blob(&to, read(digest), digest).await.unwrap();
        }
        let kind = "application/vnd.oci.image.manifest.v1+json".parse().unwrap();
        client.push_manifest_raw(&to, manifest, kind).await.unwrap();
        to.whole()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_registry_without_tls() {
    let nodes = cell(&["elsewhere"]).await;
    let image = load(&nodes[0], "web:1", 1, &[2_000_000, 100_000]);
    let registry = Registry::start(false).await;
    let name = registry.push(nodes[0].images.store(), &image).await;
    let here = cell(&["h1"]).await;
    let (tell, _told) = mpsc::channel(1);
    let pulled = here[0].images.pull_named(&name, tell).await.unwrap();
    assert_eq!(pulled.digest, image);
    assert!(here[0].whole(&image));
    // By its digest too.
    let elsewhere = cell(&["h1"]).await;
    let by_digest = format!("{}/team/web@{image}", registry.host);
    assert_eq!(elsewhere[0].images.resolve(&by_digest).await.unwrap(), image);
    let unknown = format!("{}/team/web@{}", registry.host, Digest::of(b"unknown"));
    assert_eq!(elsewhere[0].images.resolve(&unknown).await.unwrap_err().code, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_tls_and_credentials() {
    let elsewhere = cell(&["elsewhere"]).await;
    let registry = Registry::start(true).await;
    let image = load(&elsewhere[0], "web:1", 1, &[2_000_000, 100_000]);
    let name = registry.push(elsewhere[0].images.store(), &image).await;
    let strange = elsewhere[0].images.resolve(&name).await.unwrap_err();
    assert!(strange.message.contains("certificate") && strange.code == "not_found", "{strange}");
    let ca = registry.dir.path().join("ca.pem");
    let settings = Settings { ca: vec![ca], patience: PATIENCE, ..Settings::named_only() };
    let nodes = cell_with(&["h1", "h2"], settings).await;
    let refused = nodes[0].images.resolve(&name).await.unwrap_err();
    assert_eq!(refused.code, "denied", "{refused}");
    let login = |password: &str| Login { user: "ann".into(), password: Secret(password.into()) };
    let wrong = nodes[0].images.login(&registry.host, login("wrong")).await.map(|_| ()).unwrap_err();
    assert!(wrong.message.contains("refuses to user ann"), "{wrong}");
    nodes[0].images.login(&registry.host, login("secret")).await.map_err(|e| e.to_string()).unwrap();
    let (tell, _told) = mpsc::channel(1);
    let pulled = nodes[1].images.pull_named(&name, tell).await.unwrap();
    assert_eq!((pulled.digest, nodes[1].whole(&image)), (image, true));
}

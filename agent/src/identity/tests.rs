#![allow(clippy::unwrap_used)]
use std::time::Duration;

use gossip::tls::LIFETIME;

use super::*;

const KEY: &str = include_str!("../../tests/golden/key.pem");
/// As the first release wrote it: without a certificate.
const OLD: &str = include_str!("../../tests/golden/identity.json");

fn temp() -> (tempfile::TempDir, DataDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    (temp, dir)
}

/// A known key has a known id for ever: nodes and cells are named by it on disk and on the wire.
#[test]
fn ids_are_the_hash_of_the_public_key() {
    let golden = include_str!("../../tests/golden/ids.txt");
    let (node, cell) = golden.trim_end().split_once('\n').unwrap();
    assert_eq!(Key::from_pem(KEY).unwrap().node().to_string(), node);
    let found = AuthorityKey::found("covey").unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "covey cell covey");
    let certificate = params.self_signed(&rcgen::KeyPair::from_pem(KEY).unwrap()).unwrap().pem();
    let known = AuthorityKey { key: KEY.to_string(), certificate, ..found };
    assert_eq!(known.open("covey").unwrap().cell().0, cell);
}

#[test]
fn an_identity_is_made_once() {
    let (_temp, dir) = temp();
    assert_eq!(Identity::read(&dir).unwrap(), None);
    let first = Identity::open(&dir, Some("n1"), None).unwrap();
    assert_eq!((first.name.as_str(), first.cell_name.as_str()), ("n1", "covey"));
    assert_eq!(Identity::read(&dir).unwrap().as_ref(), Some(&first));
    assert_eq!(Identity::open(&dir, None, Some("covey")).unwrap(), first);
    let error = Identity::open(&dir, None, Some("other")).unwrap_err().to_string();
    assert!(error.contains("belongs to the cell `covey`, not `other`"), "{error}");
    assert!(matches!(Identity::open(&dir, Some("9x"), None), Err(IdentityError::Name(_))));
    let shown = first.credentials().unwrap();
    assert_eq!(
        (shown.subject.node, shown.subject.name.as_str(), &shown.cell),
        (first.node, "n1", &first.cell)
    );
    assert!(!format!("{first:?}").contains("PRIVATE KEY"));
}

#[test]
fn a_refused_name_leaves_no_identity() {
    let (_temp, dir) = temp();
    assert!(matches!(Identity::open(&dir, Some("a b"), None), Err(IdentityError::Name(_))));
    assert!(matches!(Identity::open(&dir, None, Some("_")), Err(IdentityError::CellName(_))));
    assert!(!dir.join(IDENTITY).exists() && !dir.join(AUTHORITY).exists());
}

#[test]
fn whoever_holds_the_authority_renews_its_own_certificate() {
    let (_temp, dir) = temp();
    let now = SystemTime::now();
    let first = Identity::open_at(&dir, Some("n1"), None, now).unwrap();
    assert_eq!(Identity::open_at(&dir, None, None, now + LIFETIME / 3).unwrap(), first);
    // It was off for weeks; or its clock was two years ahead when it began.
    for later in [now + LIFETIME * 5, now - Duration::from_secs(2 * 365 * 24 * 3600)] {
        let renewed = Identity::open_at(&dir, None, None, later).unwrap();
        let (from, until) = renewed.credentials().unwrap().validity().unwrap();
        assert!(from < later && later < until);
        assert_eq!((renewed.node, &renewed.cell), (first.node, &first.cell));
    }
    let renamed = Identity::open_at(&dir, Some("n2"), None, now).unwrap();
    assert_eq!(renamed.credentials().unwrap().subject.name, "n2");
}

#[test]
fn an_identity_of_the_first_release_gives_itself_a_certificate() {
    let (_temp, dir) = temp();
    let made = Identity::open(&dir, Some("n1"), None).unwrap();
    let old = Identity { certificate: None, authority: None, ..made.clone() };
    assert!(!serde_json::to_string(&old).unwrap().contains("certificate"));
    old.write(&dir).unwrap();
    let opened = Identity::open(&dir, None, None).unwrap();
    assert_eq!((opened.node, opened.credentials().unwrap().cell), (made.node, made.cell.clone()));
    // Without the authority it could talk to nobody.
    old.write(&dir).unwrap();
    old.drop_authority(&dir).unwrap();
    old.drop_authority(&dir).unwrap();
    let error = Identity::open(&dir, None, None).unwrap_err().to_string();
    assert!(error.contains("holds no certificate") && error.contains("--join"), "{error}");
}

#[test]
fn the_authority_comes_and_goes_with_the_vote() {
    let (_temp, dir) = temp();
    let mut node = Identity::open(&dir, Some("n1"), None).unwrap();
    let key = node.authority_key(&dir).unwrap().unwrap();
    node.drop_authority(&dir).unwrap();
    assert!(node.authority(&dir).unwrap().is_none());
    assert_eq!(Identity::open(&dir, None, None).unwrap(), node);
    // Another cell's, of the same name.
    let other = AuthorityKey::found("covey").unwrap();
    assert!(matches!(node.keep_authority(&dir, &other), Err(IdentityError::Make(TlsError::OtherAuthority))));
    assert!(node.authority_key(&dir).unwrap().is_none());
    let authority = node.keep_authority(&dir, &key).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.join(AUTHORITY)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let public = Key::from_pem(&node.key).unwrap();
    let certificate = authority.issue(public.public(), "n1", SystemTime::now()).unwrap();
    node.renewed(&dir, certificate.clone()).unwrap();
    assert_eq!(Identity::open(&dir, None, None).unwrap().certificate, Some(certificate));
    // Not for this node's key: nothing is changed by it.
    let stranger = Key::generate().unwrap();
    let foreign = authority.issue(stranger.public(), "n1", SystemTime::now()).unwrap();
    assert!(node.renewed(&dir, foreign).is_err());
    assert_eq!(Identity::read(&dir).unwrap(), Some(node));
    // A file that somebody copied from another cell.
    write_json(&dir.join(AUTHORITY), &other, 0o600).unwrap();
    let error = Identity::open(&dir, None, None).unwrap_err().to_string();
    assert!(error.contains("authority.json of") && error.contains("Restore"), "{error}");
}

/// The file's fields: a change is noticed here.
#[test]
fn the_file_is_as_it_was() {
    let old: Identity = serde_json::from_str(OLD).unwrap();
    assert_eq!(serde_json::to_string_pretty(&old).unwrap() + "\n", OLD);
    let new = Identity { certificate: Some("C".into()), authority: Some("A".into()), ..old };
    let text = serde_json::to_string(&new).unwrap();
    assert!(text.ends_with(r#""cell_name":"covey","certificate":"C","authority":"A"}"#), "{text}");
}

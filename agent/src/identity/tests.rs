#![allow(clippy::unwrap_used)]
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

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
}

#[test]
fn a_node_keeps_its_name() {
    let (_temp, dir) = temp();
    let first = Identity::open(&dir, Some("n1"), None).unwrap();
    let error = Identity::open(&dir, Some("n2"), None).unwrap_err().to_string();
    assert!(error.contains("belongs to the node `n1`, not `n2`"), "{error}");
    assert_eq!(Identity::open(&dir, Some("n1"), None).unwrap(), first);
}

#[test]
fn an_identity_of_the_first_release_gives_itself_a_certificate() {
    let (_temp, dir) = temp();
    let made = Identity::open(&dir, Some("n1"), None).unwrap();
    let old = Identity { certificate: None, authority: None, ..made.clone() };
    assert!(!serde_json::to_string(&old).unwrap().contains("certificate"));
    old.write(dir.path()).unwrap();
    let opened = Identity::open(&dir, None, None).unwrap();
    assert_eq!((opened.node, opened.credentials().unwrap().cell), (made.node, made.cell.clone()));
    // Without the authority it could talk to nobody.
    old.write(dir.path()).unwrap();
    remove(&dir.join(AUTHORITY)).unwrap();
    let error = Identity::open(&dir, None, None).unwrap_err().to_string();
    assert!(error.contains("holds no certificate") && error.contains("--join"), "{error}");
}

#[test]
fn the_authority_comes_and_goes_with_the_vote() {
    let (_temp, dir) = temp();
    let node = Identity::open(&dir, Some("n1"), None).unwrap();
    let held = Held::new(&dir, node.clone()).unwrap();
    let key = held.authority_key().unwrap().unwrap();
    held.drop_authority().unwrap();
    held.drop_authority().unwrap();
    assert!(held.authority().is_none() && held.authority_key().unwrap().is_none());
    assert_eq!(Identity::open(&dir, None, None).unwrap(), node);
    // Another cell's, of the same name.
    let other = AuthorityKey::found("covey").unwrap();
    assert!(matches!(held.keep_authority(&other), Err(IdentityError::OtherAuthority)));
    assert!(held.authority().is_none() && held.authority_key().unwrap().is_none());
    held.keep_authority(&key).unwrap();
    assert_eq!(held.authority().unwrap().cell(), &node.cell);
    let file = fs::metadata(dir.join(AUTHORITY)).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(Held::new(&dir, node.clone()).unwrap().authority().is_some());
    // A file that somebody copied from another cell.
    write_json(&dir.join(AUTHORITY), &other, 0o600).unwrap();
    let error = Identity::open(&dir, None, None).unwrap_err().to_string();
    assert!(error.contains("authority.json of") && error.contains("Restore"), "{error}");
}

#[test]
fn a_renewed_certificate_is_kept_and_a_foreign_one_is_not() {
    let (_temp, dir) = temp();
    let node = Identity::open(&dir, Some("n1"), None).unwrap();
    let held = Held::new(&dir, node.clone()).unwrap();
    let authority = held.authority().unwrap();
    let mine = Key::from_pem(&node.key).unwrap();
    let renewed = authority.issue(mine.public(), "n1", SystemTime::now()).unwrap();
    held.renewed(renewed.clone()).unwrap();
    assert_eq!(held.identity().certificate.as_ref(), Some(&renewed));
    let foreign = authority.issue(Key::generate().unwrap().public(), "n1", SystemTime::now()).unwrap();
    assert!(held.renewed(foreign).is_err() && held.renewed("nonsense".into()).is_err());
    assert_eq!(held.identity().certificate.as_ref(), Some(&renewed));
    assert_eq!(Identity::read(&dir).unwrap(), Some(held.identity()));
}

#[test]
fn a_join_that_is_begun_again_is_the_same_node() {
    let (_temp, dir) = temp();
    let key = Identity::joining_key(&dir).unwrap();
    assert_eq!(Identity::joining_key(&dir).unwrap().node(), key.node());
    assert_eq!(Identity::read(&dir).unwrap(), None);
    let made = AuthorityKey::found("home").unwrap();
    let authority = made.open("home").unwrap();
    let new = NewNode {
        certificate: authority.issue(key.public(), "n2", SystemTime::now()).unwrap(),
        authority: made.certificate.clone(),
        cell: "home".into(),
        promise: Activation { cell: 1, index: 9 },
        members: vec!["10.0.0.1:7411".parse().unwrap()],
    };
    // A certificate for somebody else, or of another cell, makes nobody a member.
    let elsewhere = AuthorityKey::found("home").unwrap().open("home").unwrap();
    let other = Key::generate().unwrap();
    assert!(Identity::joined(&dir, &other, "n2", authority.cell(), new.clone()).is_err());
    assert!(Identity::joined(&dir, &key, "n2", elsewhere.cell(), new.clone()).is_err());
    assert_eq!(Identity::read(&dir).unwrap(), None);
    let joined = Identity::joined(&dir, &key, "n2", authority.cell(), new).unwrap();
    assert_eq!((joined.node, joined.admitted), (key.node(), Some(Activation { cell: 1, index: 9 })));
    assert_eq!(Identity::open(&dir, None, Some("home")).unwrap(), joined);
    assert!(!dir.join(JOINING).exists() && !dir.join(AUTHORITY).exists());
}

/// The file's fields: a change is noticed here.
#[test]
fn the_file_is_as_it_was() {
    let old: Identity = serde_json::from_str(OLD).unwrap();
    assert_eq!(serde_json::to_string_pretty(&old).unwrap() + "\n", OLD);
    let new = Identity {
        certificate: Some("C".into()),
        authority: Some("A".into()),
        admitted: Some(Activation { cell: 1, index: 9 }),
        members: vec!["10.0.0.1:7411".parse().unwrap()],
        ..old
    };
    let text = serde_json::to_string(&new).unwrap();
    let added =
        r#""certificate":"C","authority":"A","admitted":{"cell":1,"index":9},"members":["10.0.0.1:7411"]}"#;
    assert!(text.ends_with(added), "{text}");
}

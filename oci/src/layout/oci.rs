//! OCI image layouts: index.json leads to manifests, perhaps through further indexes.

use serde::Deserialize;

use super::files::{Files, blob_name};
use super::{Error, Found, check, no_platform};
use crate::content::documents::{Descriptor, ImageConfig, Index, Manifest, Platform, is_index, is_manifest};
use crate::platform;
use crate::reference::Reference;

/// The whole name, as containerd, BuildKit and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// The specification's: a whole name or, from many tools, a tag alone.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const NESTING_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

pub(super) fn images(files: &Files, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
    if files.find("oci-layout")?.is_some() {
        let bytes = files.read("oci-layout", "the layout")?;
        let LayoutFile { image_layout_version: version } = files.parse("oci-layout", &bytes)?;
        if version.split('.').next() != Some("1") {
            return Err(Error::LayoutVersion { path: files.path.clone(), version });
        }
    }
    let index: Index = files.parse("index.json", &files.read("index.json", "the layout")?)?;
    // The variants of one image may be listed side by side, under one name or under none.
    let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
    for descriptor in index.manifests {
        let name =
            descriptor.annotations.get(FULL_NAME).or_else(|| descriptor.annotations.get(REF_NAME)).cloned();
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    if name.is_some() && groups.len() > 1 {
        let shown = |(name, _): (Option<String>, _)| name.unwrap_or_else(|| "one without name".into());
        return Err(Error::ManyImages {
            path: files.path.clone(),
            names: groups.into_iter().map(shown).collect(),
        });
    }
    let mut images = Vec::new();
    for (own_name, descriptors) in groups {
        let reference = match name {
            Some(name) => name.clone(),
            None => reference(files, own_name.as_deref())?,
        };
        let chosen = choose(files, &format!("the image {reference}"), &descriptors)?;
        images.push(read_image(files, reference, chosen)?);
    }
    Ok(images)
}

/// The reference that an annotation means. A bare word is a tag of a name that is not there.
fn reference(files: &Files, name: Option<&str>) -> Result<Reference, Error> {
    let path = files.path.clone();
    match name {
        Some(name) if name.contains([':', '/', '@']) => {
            name.parse().map_err(|source| Error::Name { path, source })
        }
        tag => {
            let tag = tag.map(|tag| format!(", only the tag {tag:?}")).unwrap_or_default();
            Err(Error::NoName { path, tag })
        }
    }
}

/// The manifest for this machine.
fn choose(files: &Files, image: &str, descriptors: &[Descriptor]) -> Result<Descriptor, Error> {
    let mut candidates = Vec::new();
    for descriptor in descriptors {
        gather(files, descriptor, 0, &mut candidates)?;
    }
    match platform::best(&candidates) {
        Some(descriptor) => Ok(descriptor.clone()),
        None => {
            let available: Vec<_> = candidates.into_iter().map(|(platform, _)| platform).collect();
            Err(no_platform(files, image.into(), &available))
        }
    }
}

fn gather(
    files: &Files,
    descriptor: &Descriptor,
    depth: usize,
    candidates: &mut Vec<(Platform, Descriptor)>,
) -> Result<(), Error> {
    let (path, digest) = (|| files.path.clone(), descriptor.digest);
    if depth > NESTING_MAX {
        return Err(Error::Nesting { path: path(), digest });
    }
    if is_index(&descriptor.media_type) {
        let bytes = files.read_blob(&digest, descriptor.size, "the index")?;
        let index: Index = files.parse(&blob_name(&digest), &bytes)?;
        return index.manifests.iter().try_for_each(|inner| gather(files, inner, depth + 1, candidates));
    }
    if !is_manifest(&descriptor.media_type) {
        let media_type = descriptor.media_type.clone();
        return Err(Error::MediaType { path: path(), what: "the manifest", digest, media_type });
    }
    let platform = match &descriptor.platform {
        Some(platform) => platform.clone(),
        None => {
            let (manifest, _) = read_manifest(files, descriptor)?;
            let (config, _) = read_config(files, &manifest)?;
            Platform { architecture: config.architecture, os: config.os, variant: None }
        }
    };
    candidates.push((platform, descriptor.clone()));
    Ok(())
}

fn read_image(files: &Files, reference: Reference, descriptor: Descriptor) -> Result<Found, Error> {
    let (manifest, manifest_bytes) = read_manifest(files, &descriptor)?;
    let (config, config_bytes) = read_config(files, &manifest)?;
    check(files, &descriptor.digest, &manifest, &config)?;
    let layer_files = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
    let digest = descriptor.digest;
    Ok(Found { names: vec![reference], digest, manifest_bytes, config_bytes, manifest, layer_files })
}

fn read_manifest(files: &Files, descriptor: &Descriptor) -> Result<(Manifest, Vec<u8>), Error> {
    let bytes = files.read_blob(&descriptor.digest, descriptor.size, "the index")?;
    Ok((files.parse(&blob_name(&descriptor.digest), &bytes)?, bytes))
}

fn read_config(files: &Files, manifest: &Manifest) -> Result<(ImageConfig, Vec<u8>), Error> {
    let config = &manifest.config;
    let bytes = files.read_blob(&config.digest, config.size, "the manifest")?;
    Ok((files.parse(&blob_name(&config.digest), &bytes)?, bytes))
}

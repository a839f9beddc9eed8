//! Which of an image's variants is for this machine.

use crate::content::documents::Platform;

/// The name that images use for the architecture this program was built for.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// How well a platform suits this machine; `None` if not at all.
pub(crate) fn fit(platform: &Platform) -> Option<u32> {
    if platform.os != "linux" || platform.architecture != architecture() {
        return None;
    }
    // A variant that is not the architecture's base may need more than this processor has.
    Some(match platform.variant.as_deref() {
        None | Some("" | "v1" | "v8") => 2,
        Some(_) => 1,
    })
}

/// The one that suits this machine best: among equals the first.
pub(crate) fn best<T>(candidates: &[(Platform, T)]) -> Option<&T> {
    let fits = candidates.iter().filter_map(|(platform, it)| Some((fit(platform)?, it)));
    fits.rev().max_by_key(|(fit, _)| *fit).map(|(_, it)| it)
}

/// What there is, in words. What is for no platform at all is no image but a statement about one.
pub(crate) fn listed<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let real = platforms.filter(|platform| platform.os != "unknown");
    let shown: std::collections::BTreeSet<String> = real.map(shown).collect();
    match shown.is_empty() {
        true => "none at all".into(),
        false => shown.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// This machine's, in words.
pub(crate) fn own() -> String {
    format!("linux/{}", architecture())
}

fn shown(platform: &Platform) -> String {
    let variant = platform.variant.as_deref().map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", platform.os, platform.architecture)
}

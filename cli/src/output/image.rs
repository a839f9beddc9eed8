//! Images.

use serde_json::Value;

use super::{
    caveats, field, items,
    table::{Look, Table},
    units::bytes,
};

pub(crate) fn images(list: &Value) -> String {
    let mut table = Table::new(&["REFERENCE", "DIGEST", ">SIZE"]);
    for image in items(list) {
        let digest = field(image, "digest");
        let short = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12)).unwrap_or(&digest);
        let size = image["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes);
        table.row(Look::Plain, [field(image, "reference"), short.to_owned(), size]);
    }
    table.render("no images; `covey image load FILE` loads one") + &caveats(list)
}

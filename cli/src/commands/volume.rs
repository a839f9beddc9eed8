//! Volumes: ls, rm. The nodes say what they have.

use gossip::wire::Call;
use serde_json::{Value, json};

use crate::{
    args::Volume,
    failure::Failure,
    names::TaskName,
    output::{self, Out},
    session::Session,
};

pub(super) async fn volume(args: Volume, session: &Session, out: &mut Out) -> Result<(), Failure> {
    match args {
        Volume::Ls => out.either(&of(session.ask(Call::Nodes).await?), output::volumes),
        Volume::Rm { volume, on } => {
            let TaskName { job, index } = volume.task;
            let call = Call::VolumeRm { job, index, name: volume.name, on };
            out.either(&session.ask(call).await?, output::volumes_removed)
        }
    }
}

/// `{job, owner, index, names, bytes, node, state}`, the last two of the node.
fn of(mut nodes: Value) -> Value {
    let mut items = Vec::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        for volume in node["volumes"].as_array().into_iter().flatten() {
            let mut item = volume.clone();
            item["node"] = node["name"].clone();
            item["state"] = node["state"].clone();
            items.push(item);
        }
    }
    items.sort_by_key(|item| {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        (text("owner"), text("job"), item["index"].as_u64(), text("node"))
    });
    nodes["items"] = json!(items);
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_jobs_and_not_of_nodes() {
        let of_node = |name: &str, index: u32| {
            json!({"name": name, "state": "alive", "volumes": [
            {"owner": "ann", "job": "db", "index": index, "names": ["data"], "bytes": 4096}]})
        };
        let nodes = json!({"as_of": "t", "stale": false, "missing": ["n9"], "items": [
            of_node("n1", 11), of_node("n2", 2), {"name": "old"}]});
        let list = of(nodes);
        let order: Vec<_> =
            list["items"].as_array().into_iter().flatten().map(|item| &item["index"]).collect();
        assert_eq!(order, [2, 11]);
        let first = json!({"owner": "ann", "job": "db", "index": 2, "names": ["data"], "bytes": 4096, "node": "n2",
                           "state": "alive"});
        assert_eq!((&list["items"][0], &list["missing"]), (&first, &json!(["n9"])));
        let table = output::volumes(&list);
        assert!(table.contains("ann/db/2") && table.contains("4.0 KiB"), "{table}");
    }
}

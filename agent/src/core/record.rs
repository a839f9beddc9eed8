//! What a node writes down of a task before it answers for it (PROTOCOL 19).

use placement::ids::TaskKey;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub key: TaskKey,
}

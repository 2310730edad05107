//! A plain store: it keeps the last write of each (name, timestamp), and answers a half-close when it has read everything.
//! What it has read it keeps over restarts.

use std::collections::BTreeMap;

use engine::wire::Frame;

use crate::node::{Cx, Node, Port};
use crate::setup::Role;

/// See the module's head.
#[derive(Default)]
pub struct StoreNode {
    pub values: BTreeMap<(Vec<u8>, u32), String>,
    /// What relays send as it is.
    pub raw: BTreeMap<(Vec<u8>, u32), String>,
}

impl Node for StoreNode {
    fn tick(&mut self, _cx: &mut Cx<'_>) {}

    fn frame(&mut self, _cx: &mut Cx<'_>, _from: Port, _frame: Frame) -> Result<(), &'static str> {
        Err("a plain store takes lines")
    }

    fn lines(&mut self, cx: &mut Cx<'_>, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = String::from_utf8_lossy(line);
            let mut fields = text.split(' ');
            let (Some(name), Some(value), Some(at)) = (fields.next(), fields.next(), fields.next()) else {
                cx.truth.violated("INV-4", || format!("a store read a line that is none: {text}"));
                continue;
            };
            let key = (name.as_bytes().to_vec(), at.parse().unwrap_or(0));
            if !name.starts_with("raw.") {
                self.values.insert(key, value.to_owned());
                continue;
            }
            if let Role::Store(store) = cx.setup.nodes[cx.me]
                && !cx.truth.lines.read(store, &key, value)
            {
                cx.truth.violated("INV-4", || format!("a store read a raw line that nobody sent to it: {text}"));
            }
            self.raw.insert(key, value.to_owned());
        }
    }

    fn pump(&mut self, _cx: &mut Cx<'_>) {}
}

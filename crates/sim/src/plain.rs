//! A plain store: it keeps the last write of each (name, timestamp), and answers a half-close when it has read everything.
//! What it has read it keeps over restarts.

use std::collections::BTreeMap;

use engine::wire::Frame;

use crate::node::{Cx, Node, Port};

/// See the module's head.
#[derive(Default)]
pub struct StoreNode {
    pub values: BTreeMap<(Vec<u8>, u32), String>,
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
            let at = at.parse().unwrap_or(0);
            self.values.insert((name.as_bytes().to_vec(), at), value.to_owned());
        }
    }

    fn pump(&mut self, _cx: &mut Cx<'_>) {}
}

//! What the simulator reads in the records of a final node's log, and how small a checkpoint can be cut.

use engine::final_node::{Finding, record};
use final_log::journal::Append;

use crate::node::Cx;

/// A checkpoint in the smallest pieces that it may be written in: each block with its index entry, the rest at the end.
pub fn in_pieces(append: Append) -> Vec<Append> {
    let Append { puts, covers, mark, .. } = append;
    let mut pieces: Vec<Append> = Vec::new();
    for put in puts {
        let begins = put.0.first() == Some(&b'w');
        match pieces.last_mut().filter(|_| !begins) {
            Some(last) => last.puts.push(put),
            None => pieces.push(Append { puts: vec![put], ..Append::default() }),
        }
    }
    if pieces.is_empty() {
        pieces.push(Append::default());
    }
    if let Some(last) = pieces.last_mut() {
        (last.covers, last.mark) = (covers, mark);
    }
    pieces
}

/// A record is about to be written: the truth has it from now on.
pub fn note_record(cx: &mut Cx<'_>, bytes: &[u8]) {
    let Some(record) = record::read(bytes) else {
        cx.truth.violated("INV-2", || "a record that cannot be read back".to_owned());
        return;
    };
    let included = match record.body {
        record::Body::Flush(flush) => flush.groups.into_iter().flat_map(|group| group.included).collect(),
        record::Body::Retired { sender, floor } => {
            cx.truth.retired(record.partition, record.number, sender, floor);
            Vec::new()
        }
    };
    cx.truth.appended(record.partition, record.number, included);
}

/// Damage was found. Where none was done, that is a violation.
pub fn found(cx: &mut Cx<'_>, partition: u16, findings: &[Finding]) {
    for finding in findings {
        cx.truth.visit("damage found");
        let expected =
            cx.truth.logs.get(&partition).is_some_and(|log| {
                log.damaged || log.lost.is_some() || (log.scratched && *finding == Finding::Checkpoint)
            });
        if !expected {
            cx.truth.violated("INV-2", || format!("partition {partition}, undamaged, finds {finding:?}"));
        }
    }
}

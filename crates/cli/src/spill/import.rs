//! `spillway spill import`: the records of a file into the spill of a relay. The whole file is read and checked first; one
//! that is damaged, newer or of another cluster changes nothing.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use admin_api::{SpillImported, paths};
use anyhow::{Context as _, anyhow};
use config::{Layer, Node};
use hyper::body::Bytes;

use super::archive::{ArchiveError, Block, Head, Reader, split_record};
use crate::client::Request;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::progress::{Progress, Unit};
use crate::replay::RUNBOOK;
use crate::screen::Screen;

/// A request holds as many whole records as fit; a single larger one goes alone. A node takes 32 MiB at once.
const REQUEST_BYTES: usize = 8 << 20;

/// # Errors
/// When there is no such relay, the file is not good, or the relay does not take it; how far it came is told.
pub(super) fn run(context: &Context<'_>, node: &str, file: &Path, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let node = context.node(Layer::Relay, node)?;
    let head = verify(context, file, screen)?;
    if head.cluster != context.cluster.name {
        return Err(Failure::refused(anyhow!(
            "{}: exported from cluster \"{}\", this is \"{}\": series would go where they do not belong; nothing was sent",
            file.display(),
            head.cluster,
            context.cluster.name
        )));
    }
    let mut taken = SpillImported::default();
    let sent = send(context, node, file, &mut taken, screen);
    let summary = format!(
        "{}: took {} records, {} points, exported from {} at {}",
        node.name,
        taken.records,
        taken.points,
        head.node,
        moment::show(head.at)
    );
    if let Err(failure) = sent {
        let error = failure.error.context(format!(
            "{summary}; then it stopped. Import it again: what was merged already stays merged once ({RUNBOOK}#import)"
        ));
        return Err(Failure { exit: failure.exit, error });
    }
    if screen.json {
        screen.json(&serde_json::json!({
            "cluster": context.cluster.name, "node": node.name, "from": head, "imported": taken,
        }))?;
    } else {
        screen.text(&format!("{summary}\n"))?;
    }
    Ok(Exit::Ok)
}

/// Reads the file to its end.
fn verify(context: &Context<'_>, file: &Path, screen: &Screen<'_>) -> Result<Head, Failure> {
    let (input, size) = open(file)?;
    let progress = Progress::new(screen, "verify", size, Unit::Bytes);
    let bad = |error: ArchiveError| refused(file, &error);
    let (head, mut reader) = Reader::begin(input).map_err(bad)?;
    let mut at = 0;
    loop {
        let block = reader.next().map_err(bad)?;
        progress.advance(reader.position() - at);
        at = reader.position();
        if block.is_none() {
            tracing::debug!(cluster = %context.cluster.name, bytes = at, "the file is good");
            return Ok(head);
        }
    }
}

fn open(file: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let name = file.display();
    let input = File::open(file).with_context(|| format!("open {name}")).map_err(Failure::usage)?;
    let size = input.metadata().with_context(|| format!("look at {name}"))?.len();
    Ok((BufReader::with_capacity(1 << 20, input), size))
}

fn refused(file: &Path, error: &ArchiveError) -> Failure {
    Failure::refused(anyhow!("{}: {error}; nothing was sent", file.display()))
}

fn send(
    context: &Context<'_>,
    node: &Node,
    file: &Path,
    taken: &mut SpillImported,
    screen: &Screen<'_>,
) -> Result<(), Failure> {
    let (input, size) = open(file)?;
    let progress = Progress::new(screen, &format!("import into {}", node.name), size, Unit::Bytes);
    let changed = |error: ArchiveError| Failure::refused(anyhow!("{}: it changed: {error}", file.display()));
    let (_, mut reader): (Head, Reader<BufReader<File>>) = Reader::begin(input).map_err(changed)?;
    let mut at = 0;
    while let Some(block) = reader.next().map_err(changed)? {
        send_block(context, node, &block, taken)?;
        progress.advance(reader.position() - at);
        at = reader.position();
    }
    Ok(())
}

/// Records name their lane themselves.
fn send_block(context: &Context<'_>, node: &Node, block: &Block, taken: &mut SpillImported) -> Result<(), Failure> {
    let mut rest = block.bytes.as_slice();
    while !rest.is_empty() {
        let (request, behind) = whole_records(rest);
        if request.is_empty() {
            return Err(Failure::refused(anyhow!("BUG: a record of a block that was checked is not whole")));
        }
        let request = Request::post_bytes(paths::SPILL_IMPORT, Bytes::copy_from_slice(request));
        let answer = context.client.one::<SpillImported>(node, request);
        let answer = answer.map_err(|fault| {
            let exit = if fault.is_refusal() { Exit::Refused } else { Exit::Unavailable };
            Failure { exit, error: anyhow!("lane {}: {fault}", block.destination) }
        })?;
        taken.records = taken.records.saturating_add(answer.records);
        taken.points = taken.points.saturating_add(answer.points);
        rest = behind;
    }
    Ok(())
}

/// As many records as one request takes, and the rest.
fn whole_records(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    while let Some((record, _)) = bytes.get(end..).and_then(split_record) {
        if end > 0 && end + record.len() > REQUEST_BYTES {
            break;
        }
        end += record.len();
    }
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_of_whole_records() {
        let record = |length: usize| {
            let mut out = u32::try_from(length).unwrap().to_le_bytes().to_vec();
            out.resize(length + 4, 7);
            out
        };
        let (small, large) = (record(10), record(REQUEST_BYTES));
        let both = [small.clone(), small.clone(), large.clone(), small.clone()].concat();
        let (first, rest) = whole_records(&both);
        assert_eq!(first, [small.clone(), small.clone()].concat());
        let (second, rest) = whole_records(rest);
        assert_eq!(second.len(), large.len());
        assert_eq!(whole_records(rest), (&*small, &[][..]));
    }
}

//! `spillway spill export`: the records of a relay that wait, in a file. The file appears whole or not at all.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use admin_api::{SpillLane, paths};
use anyhow::{Context as _, anyhow};
use config::Node;

use super::archive::{Head, Writer, records_in};
use super::{Pages, check_lane, lanes, page, stats};
use crate::amount::bytes;
use crate::client::complaint;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, Unit};
use crate::screen::Screen;

/// Records of one request: a batch has 256 KiB by default and 16 MiB at the most.
const PAGE: u64 = 64;

/// # Errors
/// When there is no such relay or lane, the file exists or cannot be written, or the relay does not answer; no file is
/// left behind then.
pub(super) fn run(
    context: &Context<'_>,
    node: &str,
    file: &Path,
    lane: Option<&str>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let answers = stats(context, Some(node))?;
    check_lane(&answers, lane)?;
    let Some(answer) = answers.first() else { return Ok(Exit::Unavailable) };
    let spill = answer.result.as_ref().map_err(|fault| unavailable(answer.node, &fault.to_string()))?;
    if file.exists() {
        return Err(Failure::usage(anyhow!("{} exists already: give another name, or remove it", file.display())));
    }
    let chosen = lanes(spill, lane);
    let part = part_of(file);
    let written = write(context, answer.node, &chosen, &part, screen).and_then(|records| {
        fs::rename(&part, file).with_context(|| format!("rename {} to {}", part.display(), file.display()))?;
        Ok(records)
    });
    let records = match written {
        Ok(records) => records,
        Err(failure) => {
            // It may not be there at all; what matters is told.
            let _removed = fs::remove_file(&part).is_ok();
            return Err(failure);
        }
    };
    let size = fs::metadata(file).with_context(|| format!("look at {}", file.display()))?.len();
    if screen.json {
        let name = file.display().to_string();
        screen.json(&serde_json::json!({
            "cluster": context.cluster.name, "node": node, "file": name, "records": records, "bytes": size,
        }))?;
    } else {
        let lanes = chosen.len();
        screen.text(&format!("{}: {records} records of {lanes} lanes of {node}, {}\n", file.display(), bytes(size)))?;
    }
    Ok(Exit::Ok)
}

/// Beside the file, so that a rename is atomic.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn unavailable(node: &Node, reason: &str) -> Failure {
    Failure::unavailable(anyhow!("{} does not answer: {reason}", node.name))
}

fn write(
    context: &Context<'_>,
    node: &Node,
    lanes: &[&SpillLane],
    part: &Path,
    screen: &Screen<'_>,
) -> Result<u64, Failure> {
    let name = part.display();
    let file = File::create(part).with_context(|| format!("create {name}")).map_err(Failure::usage)?;
    let head = Head {
        cluster: context.cluster.name.clone(),
        node: node.name.clone(),
        program: concat!("spillway ", env!("CARGO_PKG_VERSION")).to_owned(),
        at: u64::from(context.now.0),
    };
    let mut writer = Writer::begin(BufWriter::new(file), &head).with_context(|| format!("write {name}"))?;
    let total = lanes.iter().fold(0, |sum: u64, lane| sum.saturating_add(lane.pending_batches));
    let progress = Progress::new(screen, &format!("export {}", node.name), total, Unit::Records);
    for lane in lanes {
        let mut pages = Pages::begin(lane.head);
        loop {
            let reply = context.client.raw(node, page(paths::SPILL_EXPORT, lane.lane, pages.from, PAGE));
            let reply = reply.map_err(|fault| Failure::unavailable(anyhow!(spoken(node, &fault))))?;
            let records =
                records_in(&reply.body).ok_or_else(|| unavailable(node, "its export breaks off inside a record"))?;
            if records > 0 {
                writer.block(&lane.destination, records, &reply.body).with_context(|| format!("write {name}"))?;
            }
            progress.advance(records);
            if !pages.go_on(node, reply.next).map_err(|fault| unavailable(node, &fault.to_string()))? {
                break;
            }
        }
    }
    let (records, file) = writer.end().with_context(|| format!("write {name}"))?;
    let file = file.into_inner().map_err(|error| anyhow!("write {name}: {error}"))?;
    file.sync_all().with_context(|| format!("sync {name}"))?;
    Ok(records)
}

fn spoken(node: &Node, fault: &crate::client::Fault) -> String {
    complaint(&node.name, fault).trim_start_matches("spillway: ").trim_end().to_owned()
}

//! Reading a whisper file back with Debian's own `whisper-fetch`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The points of `file` with `from <= second <= until`.
pub(crate) fn fetch(file: &Path, from: u64, until: u64) -> Result<BTreeMap<u64, f64>, String> {
    if !file.exists() {
        return Err(format!("{} does not exist", file.display()));
    }
    // whisper's interval is open at the start: (from, until]
    let output = Command::new("whisper-fetch")
        .arg("--json")
        .arg(format!("--from={}", from.saturating_sub(1)))
        .arg(format!("--until={until}"))
        .arg(file)
        .output()
        .map_err(|error| format!("run whisper-fetch: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}: {text}{}", file.display(), String::from_utf8_lossy(&output.stderr)));
    }
    let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}: {text}", file.display()))?;
    let number = |key: &str| answer[key].as_u64().ok_or_else(|| format!("{}: no {key}: {text}", file.display()));
    let (start, step) = (number("start")?, number("step")?);
    let values = answer["values"].as_array().ok_or_else(|| format!("{}: no values", file.display()))?;
    let seconds = (start..).step_by(usize::try_from(step).map_err(|error| error.to_string())?);
    Ok(seconds.zip(values).filter_map(|(at, value)| value.as_f64().map(|value| (at, value))).collect())
}

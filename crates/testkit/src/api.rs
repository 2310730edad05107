//! One node's admin API, in the types the product publishes.

use std::net::SocketAddr;

use admin_api::{
    AuditEntry, BadLine, CursorAdvance, Failpoint, Health, Ledger, ModeChange, ModeStatus, NodeChange, Ordered,
    ReplayChange, ReplayStatus, SpillDiscard, SpillLoss, SpillStatus, SpillVerified, Status, WorkerStatus, paths,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http;

/// A node's admin address, with the questions a test asks it.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// Nothing is connected yet.
    pub fn new(address: SocketAddr) -> Admin {
        Admin { address }
    }

    /// The verdict, and whether the answer's status was 200.
    ///
    /// # Errors
    /// A sentence that names the node's address and what went wrong. The same holds for the methods below.
    pub fn health(&self) -> Result<(Health, bool), String> {
        let response = http::get(self.address, paths::HEALTH).map_err(|error| format!("{}: {error}", self.address))?;
        let health = serde_json::from_str(&response.body)
            .map_err(|error| format!("{}{}: {error}: {}", self.address, paths::HEALTH, response.body))?;
        Ok((health, response.status == 200))
    }

    /// # Errors
    /// See [`Admin::health`].
    pub fn status(&self) -> Result<Status, String> {
        self.ask(paths::STATUS)
    }

    /// # Errors
    /// See [`Admin::health`].
    pub fn ledger(&self) -> Result<Ledger, String> {
        self.ask(paths::LEDGER)
    }

    /// # Errors
    /// See [`Admin::health`].
    pub fn workers(&self) -> Result<Vec<WorkerStatus>, String> {
        self.ask(paths::WORKERS)
    }

    /// # Errors
    /// See [`Admin::health`].
    pub fn bad_lines(&self) -> Result<Vec<BadLine>, String> {
        self.ask(paths::BADLINES)
    }

    /// The Prometheus text.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn metrics(&self) -> Result<String, String> {
        let response = http::get(self.address, paths::METRICS).map_err(|error| format!("{}: {error}", self.address))?;
        if response.status == 200 {
            Ok(response.body)
        } else {
            Err(format!("{}{}: status {}", self.address, paths::METRICS, response.status))
        }
    }

    /// The value of one sample of `/metrics`: `name` as in `spillway_connections_closed_total`, `label` as in
    /// `reason="reset"`, or empty. 0 when it is not there.
    ///
    /// # Errors
    /// See [`Admin::health`]; also a value that is no number.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64, String> {
        let text = self.metrics()?;
        let sample = text.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        match sample.and_then(|line| line.rsplit(' ').next()) {
            None => Ok(0.0),
            Some(value) => value.parse().map_err(|error| format!("{name}{{{label}}} = {value:?}: {error}")),
        }
    }

    /// Asks a failpoint build to hurt one worker.
    ///
    /// # Errors
    /// See [`Admin::health`]; also any status but 2xx.
    pub fn fail(&self, worker: &str, action: &str, times: u32) -> Result<(), String> {
        let failpoint = Failpoint { worker: worker.to_owned(), action: action.to_owned(), times };
        self.tell(http::post_json, paths::FAILPOINT, &failpoint).map(drop)
    }

    /// A replayer's or final node's replay.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn replay(&self) -> Result<ReplayStatus, String> {
        self.ask(paths::REPLAY)
    }

    /// Changes replay, as an operator does.
    ///
    /// # Errors
    /// See [`Admin::health`]; a refusal is an error with its body.
    pub fn change_replay(&self, change: &ReplayChange) -> Result<(), String> {
        self.tell(http::put_json, paths::REPLAY, change).map(drop)
    }

    /// A relay's spill.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn spill(&self) -> Result<SpillStatus, String> {
        self.ask(paths::SPILL)
    }

    /// Reads every record of a lane's page and says what is damaged.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn verify_spill(&self, lane: u16, from: u64, limit: u64) -> Result<SpillVerified, String> {
        self.ask(&format!("{}?lane={lane}&from={from}&limit={limit}", paths::SPILL_VERIFY))
    }

    /// Gives up spilled records.
    ///
    /// # Errors
    /// See [`Admin::change_replay`].
    pub fn discard(&self, discard: &SpillDiscard) -> Result<SpillLoss, String> {
        let body = self.tell(http::post_json, paths::SPILL_DISCARD, discard)?;
        serde_json::from_str(&body).map_err(|error| format!("{}: {error} in: {body}", paths::SPILL_DISCARD))
    }

    /// Moves a lane's cursor.
    ///
    /// # Errors
    /// See [`Admin::change_replay`].
    pub fn advance_cursor(&self, advance: &CursorAdvance) -> Result<SpillLoss, String> {
        let body = self.tell(http::post_json, paths::SPILL_CURSOR, advance)?;
        serde_json::from_str(&body).map_err(|error| format!("{}: {error} in: {body}", paths::SPILL_CURSOR))
    }

    /// The modes in force.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn modes(&self) -> Result<ModeStatus, String> {
        self.ask(paths::HEALTH_MODE)
    }

    /// Switches the mode of a layer or of all, on this node.
    ///
    /// # Errors
    /// See [`Admin::change_replay`].
    pub fn change_mode(&self, change: &ModeChange) -> Result<Ordered, String> {
        let body = self.tell(http::put_json, paths::HEALTH_MODE, change)?;
        serde_json::from_str(&body).map_err(|error| format!("{}: {error} in: {body}", paths::HEALTH_MODE))
    }

    /// `drain`, `undrain` or `forget`, ordered on this node.
    ///
    /// # Errors
    /// See [`Admin::change_replay`].
    pub fn change_node(&self, node: &str, what: &str, change: &NodeChange) -> Result<Ordered, String> {
        let path = format!("/v1/nodes/{node}/{what}");
        let body = self.tell(http::post_json, &path, change)?;
        serde_json::from_str(&body).map_err(|error| format!("{path}: {error} in: {body}"))
    }

    /// The orders that this node has heard of, latest first.
    ///
    /// # Errors
    /// See [`Admin::health`].
    pub fn orders(&self) -> Result<Vec<AuditEntry>, String> {
        self.ask(paths::CONTROL_AUDIT)
    }

    fn tell<T: Serialize>(
        &self,
        send: fn(SocketAddr, &str, &str) -> std::io::Result<http::Response>,
        path: &str,
        what: &T,
    ) -> Result<String, String> {
        let body = serde_json::to_string(what).map_err(|error| error.to_string())?;
        let response = send(self.address, path, &body).map_err(|error| format!("{}{path}: {error}", self.address))?;
        if (200..300).contains(&response.status) {
            Ok(response.body)
        } else {
            Err(format!("{}{path}: status {}: {}", self.address, response.status, response.body))
        }
    }

    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let response = http::get(self.address, path).map_err(|error| format!("{}{path}: {error}", self.address))?;
        if response.status != 200 {
            return Err(format!("{}{path}: status {}: {}", self.address, response.status, response.body));
        }
        serde_json::from_str(&response.body)
            .map_err(|error| format!("{}{path}: {error} in: {}", self.address, response.body))
    }
}

//! One node's admin API, in the types the product publishes.

use std::net::SocketAddr;

use admin_api::{BadLine, Failpoint, Health, Ledger, Status, WorkerStatus, paths};
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
        let body = serde_json::to_string(&failpoint).map_err(|error| error.to_string())?;
        let response = http::post_json(self.address, paths::FAILPOINT, &body)
            .map_err(|error| format!("{}: {error}", self.address))?;
        if (200..300).contains(&response.status) {
            Ok(())
        } else {
            Err(format!("{}{}: status {}: {}", self.address, paths::FAILPOINT, response.status, response.body))
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

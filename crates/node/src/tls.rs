//! TLS of a node as the cluster file wants it: its files, and what guards each kind of connection.

use std::sync::Arc;

use config::{Cluster, Node};
use engine::time::UnixSeconds;
use runtime::Supervisor;
use telemetry::{Metric, Telemetry};
use tls::{Caller, Door, Keys, Port};
use tracing::warn;

use crate::set_gauge;
use crate::start_error::StartError;

/// See the module. All is plain where `[tls]` is off; no file is read then.
#[derive(Clone, Debug)]
pub struct Tls {
    keys: Option<Arc<Keys>>,
    /// For the admin server.
    pub admin: Door,
    /// For links that are accepted, and for those that are dialled.
    pub link_door: Door,
    pub link_caller: Caller,
    /// For Graphite clients, and for this node when it is one.
    pub graphite_door: Door,
    pub graphite_caller: Caller,
}

impl Tls {
    /// Without TLS.
    pub const fn plain() -> Tls {
        Tls {
            keys: None,
            admin: Door::plain(),
            link_door: Door::plain(),
            link_caller: Caller::plain(),
            graphite_door: Door::plain(),
            graphite_caller: Caller::plain(),
        }
    }

    /// Reads the files of `me`, if any mode is on.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(cluster: &Cluster, me: &Node) -> Result<Tls, StartError> {
        let wanted = &cluster.tls;
        if !wanted.is_on() {
            return Ok(Tls::plain());
        }
        let keys = Keys::open(wanted, &me.name)?;
        let named = wanted.links.is_on() || wanted.admin.is_on();
        if named && !keys.is_for(&me.name) {
            let names = keys.state().names.join(", ");
            warn!(node = %me.name, names, "this node's certificate is not for its name: other nodes will refuse it");
        }
        let keys = Some(keys);
        // Lines of this node go to a relay only where telemetry says so; without an authority it cannot check one.
        let own_lines = wanted.authority.as_ref().map(|_| wanted.graphite).unwrap_or_default();
        Ok(Tls {
            admin: Door::new(keys.as_ref(), wanted.admin, Port::Admin)?,
            link_door: Door::new(keys.as_ref(), wanted.links, Port::Links)?,
            link_caller: Caller::new(keys.as_ref(), wanted.links, Port::Links)?,
            graphite_door: Door::new(keys.as_ref(), wanted.graphite, Port::Graphite)?,
            graphite_caller: Caller::new(keys.as_ref(), own_lines, Port::Graphite)?,
            keys,
        })
    }

    /// Starts the worker `<layer>.tls` that takes up files when they change.
    pub fn watch(&self, me: &Node, supervisor: &Supervisor) {
        let Some(keys) = self.keys.clone() else { return };
        supervisor
            .spawn_task(format!("{}.tls", me.layer.as_str()), move |worker| tls::watch(worker, Arc::clone(&keys)));
    }

    /// Until when the certificate is good, how often it was renewed, how handshakes ended.
    pub fn record(&self, telemetry: &Telemetry) {
        let Some(keys) = &self.keys else { return };
        let state = keys.state();
        if let Some(not_after) = state.not_after {
            set_gauge(telemetry, Metric::TlsCertificateExpires, &[], not_after);
        }
        telemetry.counter(Metric::TlsReloads, &[("outcome", "done".into())]).absolute(state.reloads);
        telemetry.counter(Metric::TlsReloads, &[("outcome", "failed".into())]).absolute(state.failures);
        set_gauge(telemetry, Metric::TlsFilesRefused, &[], u64::from(state.last_error.is_some()));
        for (port, side, outcome, count) in keys.handshakes() {
            let labels = [("port", port.as_str().into()), ("side", side.as_str().into()), ("outcome", outcome.into())];
            telemetry.counter(Metric::TlsHandshakes, &labels).absolute(count);
        }
    }

    /// What `status` shows of it: seconds until the certificate expires, 0 if it has, and how handshakes ended.
    pub fn figures(&self, now: UnixSeconds) -> Vec<(String, u64)> {
        let Some(keys) = &self.keys else { return Vec::new() };
        let state = keys.state();
        let mut figures = vec![
            ("tls_reloads".to_owned(), state.reloads),
            ("tls_reload_failures".to_owned(), state.failures),
            ("tls_files_refused".to_owned(), u64::from(state.last_error.is_some())),
        ];
        let left = state.not_after.map(|not_after| not_after.saturating_sub(u64::from(now.0)));
        figures.extend(left.map(|left| ("tls_certificate_seconds_left".to_owned(), left)));
        for (port, side, outcome, count) in keys.handshakes() {
            let outcome = outcome.strip_prefix("tls_").unwrap_or(outcome);
            figures.push((format!("tls_{}_{}_{outcome}", port.as_str(), side.as_str()), count));
        }
        figures
    }
}

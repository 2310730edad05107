//! The admin API of a node, as the cluster file wants it.

use std::sync::Arc;

use admin::{Controls, Door, Limits, Server};
use admin_api::access::Role;
use auth::Keys;
use config::{Cluster, MetricsAccess, Node, TlsMode};
use runtime::{Clock, Supervisor};
use tls::{Port, TlsError};
use tokio::net::TcpListener;

use crate::start_error::{StartError, io_error};

/// Serves it until the supervisor stops it.
///
/// # Errors
/// When the TLS files cannot be used, or as [`admin::serve`]. A token file that cannot be used is none: nobody gets in by
/// it until it can, and the node does its work.
pub fn serve_admin(
    (cluster, me): (&Cluster, &Node),
    listener: TcpListener,
    controls: Arc<dyn Controls>,
    (supervisor, clock): (&Supervisor, Clock),
) -> Result<(), StartError> {
    let (limits, door) = (Limits::default(), door(cluster));
    let tls = tls_door(cluster, me, supervisor).map_err(|error| StartError::Config(error.to_string()))?;
    admin::serve(Server { limits, listener, controls, door, tls, clock }, supervisor)
        .map_err(io_error("the admin server"))
}

fn tls_door(cluster: &Cluster, me: &Node, supervisor: &Supervisor) -> Result<tls::Door, TlsError> {
    let mode = cluster.tls.admin;
    if !mode.is_on() {
        return Ok(tls::Door::plain());
    }
    let keys = tls::Keys::open(&cluster.tls, &me.name)?;
    let door = tls::Door::new(Some(&keys), mode, Port::Admin)?;
    supervisor.spawn_task("admin.tls", move |worker| tls::watch(worker, Arc::clone(&keys)));
    Ok(door)
}

fn door(cluster: &Cluster) -> Door {
    let files = [(Role::Read, &cluster.auth.read), (Role::Operate, &cluster.auth.operate)];
    let files: Vec<_> = files.into_iter().filter_map(|(role, path)| Some((role, path.clone()?))).collect();
    Door {
        keys: (!files.is_empty()).then(|| Keys::open(files)),
        mutual: cluster.tls.admin == TlsMode::Mutual,
        open_metrics: cluster.auth.metrics == MetricsAccess::Open,
    }
}

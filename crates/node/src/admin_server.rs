//! The admin API of a node, as the cluster file wants it.

use std::sync::Arc;

use admin::{Controls, Door, Limits, Server};
use admin_api::access::Role;
use auth::Keys;
use config::{Cluster, MetricsAccess, TlsMode};
use runtime::{Clock, Supervisor};
use tokio::net::TcpListener;

use crate::start_error::{StartError, io_error};
use crate::tls::Tls;

/// Serves it until the supervisor stops it.
///
/// # Errors
/// As [`admin::serve`]. A token file that cannot be used is none: nobody gets in by
/// it until it can, and the node does its work.
pub fn serve_admin(
    (cluster, tls): (&Cluster, &Tls),
    listener: TcpListener,
    controls: Arc<dyn Controls>,
    (supervisor, clock): (&Supervisor, Clock),
) -> Result<(), StartError> {
    let (limits, door, tls) = (Limits::default(), door(cluster), tls.admin.clone());
    admin::serve(Server { limits, listener, controls, door, tls, clock }, supervisor)
        .map_err(io_error("the admin server"))
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

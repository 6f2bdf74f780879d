//! `/metrics` over HTTP, on the control thread: a slow reader costs no core anything.

use std::{net::TcpListener, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::join_all;

use super::{Gathered, text};
use crate::mesh::{CoreMessage, Mesh};

/// How long a core may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a person sees who opens the address in a browser.
const INDEX: &str = "Headwater. Metrics for Prometheus are at /metrics\n";

/// Serves until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, mesh: Mesh) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .with_state(mesh);
    axum::serve(listener, router).await
}

async fn metrics(State(mesh): State<Mesh>) -> Response {
    let gathered = gather(&mesh).await;
    match text::encode(gathered) {
        Ok(text) => ([(CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn gather(mesh: &Mesh) -> Gathered {
    let ask = |core| async move {
        let answer = mesh.ask(core, |reply| CoreMessage::Metrics { reply });
        let answer = tokio::time::timeout(ANSWER_MAX, answer).await;
        (core, answer.unwrap_or_default())
    };
    Gathered {
        cores: join_all(mesh.ids().map(ask)).await,
        resident_bytes: resident_bytes(),
    }
}

/// `VmRSS` of `/proc/self/status`, which is in kibibytes (`proc_pid_status(5)`).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

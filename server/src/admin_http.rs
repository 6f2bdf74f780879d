//! `/metrics`, `/health` and `/ready` over HTTP, on a thread of its own: a slow reader costs no core anything.

mod door;

use std::{net::TcpListener, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::join_all;
use serde_json::json;

use crate::{
    config::Config,
    core::mesh::{CoreMessage, Mesh},
    metrics::{ANSWER_MAX, DiskSpace, Gathered, LookAtQuorum, Process, text},
    tls::Tls,
};

/// What a person sees who opens the address in a browser.
const INDEX: &str = "Headwater. Metrics for Prometheus are at /metrics; /health and /ready say how the broker is.\n";

/// Whom to ask, and what is wanted.
#[derive(Clone)]
struct Asked {
    mesh: Mesh,
    quorum: LookAtQuorum,
    config: Arc<Config>,
    tls: Arc<Tls>,
}

/// Serves until the runtime ends.
pub(crate) async fn serve(
    (listener, tls): (TcpListener, Arc<Tls>),
    mesh: Mesh,
    quorum: LookAtQuorum,
    config: Arc<Config>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(Asked {
            mesh,
            quorum,
            config,
            tls: Arc::clone(&tls),
        });
    if tls.http.is_some() {
        axum::serve(door::SecureDoor::open(listener, tls)?, router).await
    } else {
        axum::serve(listener, router).await
    }
}

async fn metrics(State(asked): State<Asked>) -> Response {
    let gathered = gather(&asked).await;
    match text::encode(gathered) {
        Ok(text) => ([(CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether the process works: every core answers. Whoever watches over it starts it again otherwise.
async fn health(State(asked): State<Asked>) -> Response {
    verdict(&gather(&asked).await, |gathered| gathered.silent().is_empty())
}

/// Whether clients are served as they should be: every core answers, and no partition is offline.
async fn ready(State(asked): State<Asked>) -> Response {
    verdict(&gather(&asked).await, |gathered| {
        gathered.silent().is_empty() && gathered.partitions_offline() == 0
    })
}

fn verdict(gathered: &Gathered, is_good: impl Fn(&Gathered) -> bool) -> Response {
    let ok = is_good(gathered);
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ok": ok,
        "cores_silent": gathered.silent(),
        "partitions_offline": gathered.partitions_offline(),
    });
    (status, Json(body)).into_response()
}

async fn gather(asked: &Asked) -> Gathered {
    let mesh = &asked.mesh;
    let ask = |core| async move {
        let answer = mesh.ask(core, |reply| CoreMessage::Metrics {
            with_times: true,
            reply,
        });
        let answer = tokio::time::timeout(ANSWER_MAX, answer).await;
        (core, answer.unwrap_or_default())
    };
    Gathered {
        cores: join_all(mesh.ids().map(ask)).await,
        quorum: (asked.quorum)(),
        series_max: asked.config.metrics.series_max as usize,
        process: Process::now(),
        disk: DiskSpace::of(&asked.config.log.directory),
        certificates: asked.tls.expiries(),
    }
}

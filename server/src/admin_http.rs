//! `/metrics`, `/health` and `/ready` over HTTP, on a thread of its own: a slow reader costs no core anything.

mod door;
mod ready;

pub(crate) use self::door::SecureDoor;
pub(crate) use self::ready::LookAtCluster;

use std::{net::TcpListener, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::join_all;

use self::ready::{Standing, Verdict};
use crate::{
    config::Config,
    core::mesh::{CoreMessage, Mesh},
    metrics::{ANSWER_MAX, DiskSpace, Gathered, LookAtQuorum, Process, text},
    tls::{ClusterSecret, Tls},
    tokens::Tokens,
};

/// What a person sees who opens the address in a browser.
const INDEX: &str = "Headwater. Metrics for Prometheus are at /metrics; /health and /ready say how the broker is.\n";

/// Whom to ask, and what is wanted.
#[derive(Clone)]
struct Asked {
    mesh: Mesh,
    quorum: LookAtQuorum,
    /// None: the broker is alone, or has no replicas.
    cluster: Option<LookAtCluster>,
    config: Arc<Config>,
    tls: Arc<Tls>,
}

/// Serves until the runtime ends.
pub(crate) async fn serve(
    (listener, tls): (TcpListener, Arc<Tls>),
    mesh: Mesh,
    (quorum, cluster): (LookAtQuorum, Option<LookAtCluster>),
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
            cluster,
            config,
            tls: Arc::clone(&tls),
        });
    if tls.metrics.is_some() {
        let door = SecureDoor::open(listener, tls, |tls| tls.metrics.as_ref())?;
        axum::serve(door, router).await
    } else {
        axum::serve(listener, router).await
    }
}

/// What `/metrics` says, for whoever shows it elsewhere.
pub(crate) async fn metrics_text(
    mesh: Mesh,
    quorum: LookAtQuorum,
    config: Arc<Config>,
    tls: Arc<Tls>,
) -> Result<String, std::fmt::Error> {
    let asked = Asked {
        mesh,
        quorum,
        cluster: None,
        config,
        tls,
    };
    text::encode(gather(&asked, true).await)
}

async fn metrics(State(asked): State<Asked>) -> Response {
    let gathered = gather(&asked, true).await;
    match text::encode(gathered) {
        Ok(text) => ([(CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether the process works: every core answers.
async fn health(State(asked): State<Asked>) -> Response {
    answer(Verdict::of_health(&gather(&asked, false).await))
}

/// Whether clients are served as they should be.
async fn ready(State(asked): State<Asked>) -> Response {
    let gathered = gather(&asked, false).await;
    let standing = asked.cluster.as_ref().map(|look| Standing::of(&look()));
    answer(Verdict::of_readiness(&gathered, standing))
}

fn answer(verdict: Verdict) -> Response {
    let status = if verdict.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(verdict)).into_response()
}

async fn gather(asked: &Asked, with_times: bool) -> Gathered {
    let mesh = &asked.mesh;
    let ask = |core| async move {
        let answer = mesh.ask(core, |reply| CoreMessage::Metrics { with_times, reply });
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
        key_fetches: asked.tls.tokens.as_deref().map(Tokens::fetches),
        proofs_refused: asked.tls.secret.as_ref().map(ClusterSecret::refused),
    }
}

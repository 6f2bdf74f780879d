//! The service as a whole: what all requests share, and how it begins and ends.

use std::{io, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use axum::{Router, middleware, serve::Listener};
use tokio::{sync::watch, time::timeout};

use crate::{
    admission::{self, Admission},
    caller, console,
    door::{Bounded, Peer},
    rest,
    sessions::Sessions,
    settings::Settings,
};

/// So long requests that are under way may take when the service stops.
const STOP_MAX: Duration = Duration::from_secs(2);

/// REST and the console.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

/// What all requests share.
pub struct Shared {
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) admission: Admission,
    pub(crate) rest: rest::State,
    pub(crate) console: console::State,
    stopping: watch::Sender<bool>,
}

impl Deref for Service {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Service {
    /// Does nothing before it serves; brokers are asked when somebody asks.
    pub fn new(settings: Settings) -> Service {
        Service(Arc::new(Shared {
            sessions: Sessions::new(&settings),
            admission: Admission::new(&settings.limits),
            rest: rest::State::new(&settings.limits),
            console: console::State::new(&settings),
            stopping: watch::Sender::new(false),
            settings,
        }))
    }

    /// Serves until `stop` resolves, then lets what is under way end.
    ///
    /// # Errors
    /// If nothing can be accepted any more.
    pub async fn serve<L>(self, listener: L, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()>
    where
        L: Listener<Addr = SocketAddr>,
    {
        let door = Bounded::new(listener, &self.settings.limits);
        let (service, router) = (self.clone(), self.router());
        let tidy = tokio::spawn(rest::tidy(self.clone()));
        let stopped = async move {
            stop.await;
            service.stopping.send_replace(true);
        };
        let mut stopping = self.stopping.subscribe();
        let serving = axum::serve(door, router.into_make_service_with_connect_info::<Peer>());
        let serving = serving.with_graceful_shutdown(stopped);
        let late = async move {
            let _ = stopping.wait_for(|is| *is).await;
            tokio::time::sleep(STOP_MAX).await;
        };
        let served = tokio::select! {
            served = serving.into_future() => served,
            () = late => Ok(()),
        };
        tidy.abort();
        // Members of groups leave, so that nobody waits for them.
        let _ = timeout(STOP_MAX, self.rest.leave_all()).await;
        served
    }

    /// Every path.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .merge(rest::router())
            .merge(console::router())
            .fallback(rest::not_found)
            .method_not_allowed_fallback(rest::method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), caller::cross_origin))
            .layer(middleware::from_fn_with_state(self.clone(), admission::admit))
            .with_state(self.clone())
    }
}

impl Shared {
    /// Resolves when the service stops: what waits for records waits no longer.
    pub(crate) async fn stopping(&self) {
        let _ = self.stopping.subscribe().wait_for(|is| *is).await;
    }
}

//! One core at work: makes what it is built of, answers what comes in its inbox, and stops in order.
//!
//! ```text
//! Sessions -> Ops -> Service (groups) -> Partitions -> Core
//! ```
//! Each knows those to its right and none to its left. A core opens the partitions that the cluster image gives to it, serves
//! connections until it is told to stop, then answers what it has taken in and makes everything durable.

use std::{io, rc::Rc, sync::Arc};

use futures::{StreamExt as _, channel::mpsc, future::select};
use headwater_engine::disk::Disk as _;
use headwater_protocol::id::CoreId;

use crate::{
    cluster::ControlHandle,
    config::Config,
    coordinator::{Service, service},
    core::{
        Core,
        catch_up::CatchUp,
        mesh::{self, CoreMessage, Listeners, Mesh},
        watchdog::Activity,
    },
    image::Assignment,
    machine::{self, Daemons, Disk},
    ops::{Addresses, Ops, fetch, figures, forwarded, logs, offsets, topics},
    partition::{self, Partitions},
    session::{
        Follows, Sessions,
        listener::{self, Speaks},
    },
    tls::Tls,
};

/// What all cores are told when they start.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    /// Descriptors of segment files on each core.
    pub(crate) open_files_max: usize,
    pub(crate) mesh: Mesh,
    pub(crate) catch_up: Arc<CatchUp>,
    pub(crate) control: ControlHandle,
    /// Who else is there, and who has what; `None` if the broker is alone.
    pub(crate) assignment: Option<Arc<Assignment>>,
    /// Where clients find the broker and each core.
    pub(crate) addresses: Arc<Addresses>,
    /// What each port shows and asks for, where it has TLS.
    pub(crate) tls: Arc<Tls>,
}

/// All that a core is.
pub(crate) struct Server {
    core: Rc<Core>,
    partitions: Rc<Partitions>,
    groups: Rc<Service>,
    ops: Rc<Ops>,
    sessions: Rc<Sessions>,
    follows: Rc<Follows>,
}

impl Server {
    /// Call it on the core's executor.
    pub(crate) fn new(id: CoreId, setup: Setup, disk: Disk, activity: Arc<Activity>) -> Server {
        disk.open_files().set_limit(setup.open_files_max);
        let core = Core::new(id, setup.config, setup.mesh, setup.catch_up, disk, activity);
        let partitions = Partitions::new(&core, setup.assignment);
        let groups = Service::new(&partitions);
        let ops = Ops::new(&partitions, &groups, setup.control, setup.addresses);
        let sessions = Sessions::new(&ops, setup.tls);
        let follows = Follows::new(&sessions);
        Server {
            core,
            partitions,
            groups,
            ops,
            sessions,
            follows,
        }
    }

    /// Serves until the core is told to stop and everything is durable. An error if partitions were left to be recovered.
    pub(crate) async fn run(self, mut inbox: mpsc::UnboundedReceiver<CoreMessage>) -> io::Result<()> {
        let Server {
            core,
            partitions,
            groups,
            follows,
            ..
        } = &self;
        let daemons = Daemons::default();
        core.keep_awake(&daemons);
        partitions.begin_journal().await;
        let news = have_role(groups, follows);
        partition::start(partitions, &daemons, news);
        daemons.spawn(service::keep_time(Rc::clone(groups)));
        while let Some(message) = inbox.next().await {
            if matches!(message, CoreMessage::Stop) {
                break;
            }
            self.take(message);
        }
        core.stop();
        // Other cores may still need answers while their connections are being drained.
        let inbox_open = async {
            while let Some(message) = inbox.next().await {
                self.take(message);
            }
        };
        select(std::pin::pin!(core.drained()), std::pin::pin!(inbox_open)).await;
        let closed = partition::close_partitions(partitions).await;
        core.at_rest().await;
        daemons.end().await;
        // A blocking operation whose task was ended just now.
        machine::blocking_threads_rest().await;
        closed
    }

    fn take(&self, message: CoreMessage) {
        let partitions = Rc::clone(&self.partitions);
        match message {
            CoreMessage::Forward(request) => forwarded::take(&self.ops, request),
            CoreMessage::Fetch { items, room, reply } => {
                machine::spawn(fetch::answer_other_core(partitions, items, room, reply));
            }
            CoreMessage::AwaitNews { seen, reply } => {
                machine::spawn(mesh::answer(reply, fetch::news_for_other_core(partitions, seen)));
            }
            CoreMessage::ListOffsets { items, reply } => machine::spawn(async move {
                let _ = reply.send(offsets::list_here(&partitions, items).await);
            }),
            CoreMessage::DeleteRecords { id, before, reply } => machine::spawn(async move {
                let _ = reply.send(offsets::delete_here(&partitions, id, before).await);
            }),
            CoreMessage::Describe { ids, reply } => {
                let _ = reply.send(topics::describe_here(&partitions, &ids));
            }
            CoreMessage::Producers { id, reply } => {
                let _ = reply.send(logs::producers_here(&partitions, id));
            }
            CoreMessage::ListGroups { wanted, reply } => {
                let _ = reply.send(self.groups.list(&wanted));
            }
            CoreMessage::Metrics { with_times, reply } => {
                let _ = reply.send(figures::snapshot(&self.ops, with_times));
            }
            CoreMessage::Apply { image, reply } => {
                let have_role = have_role(&self.groups, &self.follows);
                machine::spawn(async move {
                    partitions.apply(image).await;
                    have_role();
                    let _ = reply.send(());
                });
            }
            CoreMessage::Assign { assignment, reply } => {
                if partitions.assign(&assignment) {
                    have_role(&self.groups, &self.follows)();
                }
                let _ = reply.send(());
            }
            CoreMessage::Wishes { reply } => {
                let _ = reply.send(partitions.wishes());
            }
            CoreMessage::Serve { listeners } => {
                let Listeners { native, kafka } = listeners;
                let native = native.into_iter().map(|bound| (bound, Speaks::Native));
                for (bound, speaks) in native.chain(kafka.into_iter().map(|bound| (bound, Speaks::Kafka))) {
                    machine::spawn(listener::accept(Rc::clone(&self.sessions), bound, speaks));
                }
            }
            CoreMessage::Stop => {}
            #[cfg(test)]
            CoreMessage::Run(what) => what(),
        }
    }
}

/// What is to be done whenever partitions may be here, or led here, that were not before: their groups are read, and followers connect.
fn have_role(groups: &Rc<Service>, follows: &Rc<Follows>) -> impl Fn() + use<> {
    let (groups, follows) = (Rc::clone(groups), Rc::clone(follows));
    move || {
        service::follow(&groups);
        follows.reconcile();
    }
}

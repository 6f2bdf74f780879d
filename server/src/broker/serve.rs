//! One core at work: makes what it is built of, answers what comes in its inbox, and stops in order.
//!
//! ```text
//! Sessions -> Ops -> Transactions -> Service (groups) -> Partitions -> Core
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
    coordinator::{
        Service, service,
        transactions::{self, Transactions},
    },
    core::{
        Core, Shared,
        catch_up::CatchUp,
        errands::Errands,
        lease::Lease,
        mesh::{self, CoreMessage, Listeners, Mesh},
        quotas::Accounts,
        watchdog::Activity,
    },
    image::Assignment,
    machine::{self, Daemons, Disk},
    ops::{Addresses, Ops, audit::write, fetch, figures, forwarded, logs, offsets, topics},
    partition::{self, Partitions},
    session::{
        self, Follows, Sessions,
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
    pub(crate) lease: Arc<Lease>,
    /// What is used by those who have quotas.
    pub(crate) accounts: Arc<Accounts>,
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
    transactions: Rc<Transactions>,
    ops: Rc<Ops>,
    sessions: Rc<Sessions>,
    follows: Rc<Follows>,
}

impl Server {
    /// Call it on the core's executor.
    pub(crate) fn new(id: CoreId, setup: Setup, disk: Disk, activity: Arc<Activity>) -> Server {
        disk.open_files().set_limit(setup.open_files_max);
        let shared = Shared {
            catch_up: setup.catch_up,
            lease: setup.lease,
            accounts: setup.accounts,
        };
        let core = Core::new(id, setup.config, setup.mesh, shared, disk, activity);
        let partitions = Partitions::new(&core, setup.assignment);
        let groups = Service::new(&partitions);
        let errands = Errands::new();
        let transactions = Transactions::new(&groups, &errands);
        let ops = Ops::new(&transactions, setup.control, setup.addresses);
        let sessions = Sessions::new(&ops, setup.tls);
        let follows = Follows::new(&sessions);
        Server {
            core,
            partitions,
            groups,
            transactions,
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
            transactions,
            sessions,
            follows,
            ..
        } = &self;
        let daemons = Daemons::default();
        core.keep_awake(&daemons);
        partitions.begin_journal().await;
        let news = have_role(transactions, follows);
        partition::start(partitions, &daemons, news);
        daemons.spawn(service::keep_time(Rc::clone(groups)));
        daemons.spawn(write::keep(Rc::clone(&self.ops)));
        daemons.spawn(transactions::service::keep_time(Rc::clone(transactions)));
        let errands = Rc::clone(&transactions.marks.errands);
        daemons.spawn(session::run_errands(Rc::clone(sessions), errands));
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
            CoreMessage::ListTransactions { reply } => {
                let _ = reply.send(self.transactions.list());
            }
            CoreMessage::Mark { marker, ids, reply } => {
                let transactions = Rc::clone(&self.transactions);
                machine::spawn(async move {
                    let _ = reply.send(transactions.marks.mark_here(marker, &ids).await);
                });
            }
            CoreMessage::Metrics { with_times, reply } => {
                let _ = reply.send(figures::snapshot(&self.ops, with_times));
            }
            CoreMessage::Apply { image, reply } => {
                let have_role = have_role(&self.transactions, &self.follows);
                machine::spawn(async move {
                    partitions.apply(image).await;
                    have_role();
                    let _ = reply.send(());
                });
            }
            CoreMessage::Assign { assignment, reply } => {
                if partitions.assign(&assignment) {
                    have_role(&self.transactions, &self.follows)();
                }
                let _ = reply.send(());
            }
            CoreMessage::Audit { id, records } => write::append(&self.ops, id, &records),
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

/// What is to be done whenever partitions may be here, or led here, that were not before: their groups and
/// transactions are read, and followers connect.
fn have_role(transactions: &Rc<Transactions>, follows: &Rc<Follows>) -> impl Fn() + use<> {
    let (transactions, follows) = (Rc::clone(transactions), Rc::clone(follows));
    move || {
        service::follow(&transactions.marks.groups);
        transactions::service::follow(&transactions);
        follows.reconcile();
    }
}

//! What a broker is made of before any of it runs: the same whether its parts run on threads or as tasks of a simulated world.

use std::sync::Arc;

use futures::channel::mpsc;
use headwater_engine::disk::Directory;
use headwater_protocol::id::CoreId;

use super::serve::Setup;
use crate::{
    cluster::{self, ControlParts, TopicStore},
    config::Config,
    core::{
        catch_up::CatchUp,
        mesh::{CoreMessage, Listeners, Mesh},
        quotas::Accounts,
    },
    image::{Assignment, KafkaAddress},
    machine,
    ops::Addresses,
    tls::Tls,
};

/// Where clients find a broker: a port that its cores share, and one of each core.
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) core_ports: Vec<u16>,
    /// Where Kafka's clients find it, if they do.
    pub(crate) kafka: Option<KafkaAddress>,
    /// Who else is there, and who has what; `None` if the broker is alone.
    pub(crate) assignment: Option<Arc<Assignment>>,
    /// What each port shows and asks for, where it has TLS.
    pub(crate) tls: Arc<Tls>,
}

/// A broker that is put together. Its cores are started first, then they are told of the topics, then the control plane is started,
/// and at last the door is opened.
pub(crate) struct Assembly<D: Directory> {
    setup: Setup,
    inboxes: Vec<mpsc::UnboundedReceiver<CoreMessage>>,
    control: ControlParts<D>,
}

impl<D: Directory> Assembly<D> {
    pub(crate) fn new(
        config: &Arc<Config>,
        store: TopicStore<D>,
        (mesh, inboxes): (Mesh, Vec<mpsc::UnboundedReceiver<CoreMessage>>),
        open_files_max: usize,
        door: Door,
    ) -> Assembly<D> {
        let addresses = Arc::new(Addresses {
            cluster_id: store.identity().cluster_id.as_str().to_owned(),
            host: door.host,
            port: door.port,
            core_ports: door.core_ports,
            kafka: door.kafka,
        });
        let (handle, queues) = cluster::channel(&store);
        let catch_up = config.cluster.catch_up_bytes_per_second_max.bytes();
        let setup = Setup {
            config: Arc::clone(config),
            catch_up: Arc::new(CatchUp::new(catch_up, machine::now())),
            accounts: Arc::new(Accounts::new(machine::now())),
            open_files_max,
            lease: store.lease(),
            mesh: mesh.clone(),
            control: handle,
            assignment: door.assignment,
            addresses,
            tls: door.tls,
        };
        let control = ControlParts { store, mesh, queues };
        Assembly {
            setup,
            inboxes,
            control,
        }
    }

    pub(crate) fn mesh(&self) -> &Mesh {
        &self.setup.mesh
    }

    /// The cores to start: each with what it is told, and where it gets its messages.
    pub(crate) fn cores(&mut self) -> impl Iterator<Item = (CoreId, Setup, mpsc::UnboundedReceiver<CoreMessage>)> {
        let numbered = self.inboxes.drain(..).enumerate();
        numbered.map(|(number, inbox)| (CoreId::new(number as u16), self.setup.clone(), inbox))
    }

    /// Has the cores open the partitions that are theirs.
    pub(crate) async fn publish(&self) {
        cluster::publish(self.mesh(), self.control.store.image()).await;
    }

    pub(crate) fn into_control(self) -> ControlParts<D> {
        self.control
    }
}

/// Lets the cores accept connections.
pub(crate) fn open_door(mesh: &Mesh, listeners: impl IntoIterator<Item = Listeners>) {
    for (core, listeners) in mesh.ids().zip(listeners) {
        mesh.send(core, CoreMessage::Serve { listeners });
    }
}

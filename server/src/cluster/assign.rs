//! What all cores are told of topics, brokers and replicas, and what they would have the coordinator change.

use std::sync::Arc;

use futures::future::join_all;

use crate::{
    core::mesh::{CoreMessage, Mesh},
    image::{Assignment, ClusterImage, Wishes},
};

/// Tells every core, and returns when all go by it.
pub(crate) async fn assign(mesh: &Mesh, assignment: &Arc<Assignment>) {
    let tell = |core| {
        mesh.ask(core, |reply| CoreMessage::Assign {
            assignment: Arc::clone(assignment),
            reply,
        })
    };
    join_all(mesh.ids().map(tell)).await;
}

/// What the cores wish now, all together.
pub(crate) async fn wishes(mesh: &Mesh) -> Wishes {
    let asked = mesh
        .ids()
        .map(|core| mesh.ask(core, |reply| CoreMessage::Wishes { reply }));
    let mut all = Wishes::default();
    for wishes in join_all(asked).await.into_iter().flatten() {
        all.join(wishes);
    }
    all
}

/// Sends an image to every core and waits until all have applied it.
pub(crate) async fn publish(mesh: &Mesh, image: Arc<ClusterImage>) {
    let apply = |core| {
        mesh.ask(core, |reply| CoreMessage::Apply {
            image: Arc::clone(&image),
            reply,
        })
    };
    join_all(mesh.ids().map(apply)).await;
}

//! What a person meets first when something is wrong: a code, a message that says what, and a next
//! step.

mod deploys;
mod orders;
mod prompts;

pub(crate) use deploys::SmallDisk;
use tests::scene::Scene;
use tests::workloads::listing_image;

fn scene() -> Scene {
    Scene::new(&listing_image(), "org/app:v1")
}

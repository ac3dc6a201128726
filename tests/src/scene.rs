//! What most journeys begin with: a registry that has one image.

use crate::daemon::Daemon;
use crate::image::Image;
use crate::names::Names;
use crate::registry::Registry;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Scene {
    folder: TempDir,
    pub registry: Registry,
    /// Of the image.
    pub reference: String,
    /// The image's manifest.
    pub digest: String,
}

impl Scene {
    /// With the image under this name, as `org/app:v1`.
    #[must_use]
    pub fn new(image: &Image, name: &str) -> Scene {
        Scene::at(Registry::start(), image, name)
    }

    #[must_use]
    pub fn at(registry: Registry, image: &Image, name: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        let digest = image.write(&layout);
        let reference = registry.push(&layout, name);
        Scene {
            folder,
            registry,
            reference,
            digest,
        }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Pushes one more image, and gives its reference.
    #[must_use]
    pub fn push(&self, image: &Image, name: &str) -> String {
        let layout = self.folder().join(name.replace([':', '/'], "-"));
        image.write(&layout);
        self.registry.push(&layout, name)
    }

    /// A daemon that knows these names, and lets enclaves connect to this machine.
    #[must_use]
    pub fn start_with(&self, names: &Names) -> Daemon {
        let environment = names.environment();
        let mut settings = vec![("HOST_PROXY_EGRESS__ALLOW_NETWORKS", "['127.0.0.0/8']")];
        settings.extend(environment.iter().map(|(k, v)| (*k, v.as_str())));
        self.start(&settings)
    }

    /// A daemon for this registry, with more settings.
    #[must_use]
    pub fn start(&self, more: &[(&str, &str)]) -> Daemon {
        Daemon::start_for(&self.registry, more)
    }
}

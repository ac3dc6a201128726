//! Mounts the measured squashfs, lays a tmpfs over it for what the workload writes, and fills in
//! what containers expect.

use crate::boundary::{self, Users};
use crate::error::BootError;
pub(crate) use crate::mounts::ROOT;
use crate::{initrd, mounts, sys};
use nix::mount::{self, MsFlags};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use wire::control::AbortReason;

const LOWER: &str = "/run/image";
const OVERLAY: &str = "/run/overlay";

/// `disk` is what the workload may write, in bytes.
pub(crate) fn mount(users: &Users, disk: u64) -> Result<(), BootError> {
    mount_image(users, disk)?;
    for target in boundary::TARGETS {
        if !is_below_root(Path::new(target)) {
            let detail = format!("the image's {target} is or is below a symbolic link");
            return Err(BootError::new(AbortReason::RootFs, detail));
        }
    }
    mount_dev(users).map_err(failed("cannot populate /dev"))?;
    write_hosts(users).map_err(failed("cannot write /etc/hosts"))
}

fn mount_dev(users: &Users) -> io::Result<()> {
    let dev = match users.namespace() {
        Some(_) => mounts::OWN_DEVICES,
        None => mounts::MACHINE_DEVICES,
    };
    dev.mount_below(ROOT)?;
    mounts::WORKLOAD
        .iter()
        .try_for_each(|entry| entry.mount_below(ROOT))?;
    let dev = Path::new(ROOT).join("dev");
    users.give_to_root(&dev)?;
    boundary::populate(&dev, users)
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> BootError {
    BootError::of(AbortReason::RootFs, doing)
}

/// The squashfs, and the overlay on it at [`ROOT`].
fn mount_image(users: &Users, disk: u64) -> Result<(), BootError> {
    for directory in [ROOT, LOWER, OVERLAY] {
        fs::create_dir_all(directory).map_err(failed("cannot create a mount point"))?;
    }
    let image = initrd::find(wire::ramdisk::IMAGE).map_err(failed(
        "cannot find the image; the kernel's command line needs 'retain_initrd'",
    ))?;
    let device = sys::attach_loop(Path::new(initrd::PATH), image)
        .map_err(failed("cannot attach the image to a loop device"))?;
    let safe = safe(users);
    mount::mount(
        Some(&device),
        LOWER,
        Some("squashfs"),
        safe | MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .map_err(|e| failed("cannot mount the image")(e.into()))?;
    if let Some(namespace) = users.namespace() {
        boundary::map_owners(Path::new(LOWER), namespace)
            .map_err(failed("cannot map the owners of the image's files"))?;
    }
    mount::mount(
        Some("tmpfs"),
        OVERLAY,
        Some("tmpfs"),
        safe,
        Some(format!("mode=0755,size={disk}").as_str()),
    )
    .map_err(|e| failed("cannot mount a tmpfs over the image")(e.into()))?;
    overlay(safe).map_err(failed("cannot mount the overlay"))
}

/// Programs of the image gain no rights by being run, and its device nodes open no device.
fn safe(users: &Users) -> MsFlags {
    match users.namespace() {
        Some(_) => MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        None => MsFlags::empty(),
    }
}

fn overlay(flags: MsFlags) -> io::Result<()> {
    let (upper, work) = (format!("{OVERLAY}/upper"), format!("{OVERLAY}/work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    // The overlay's root shows the metadata of the upper directory.
    let image = fs::metadata(LOWER)?;
    chown(&upper, Some(image.uid()), Some(image.gid()))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(image.mode() & 0o7777))?;
    let options = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    Ok(mount::mount(
        Some("overlay"),
        ROOT,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )?)
}

/// A hosts file, as container engines provide one; what the image has stays, unless it is empty.
fn write_hosts(users: &Users) -> io::Result<()> {
    let etc = Path::new(ROOT).join("etc");
    let hosts = etc.join("hosts");
    let usable = is_below_root(Path::new("/etc/hosts")) && etc.is_dir();
    let needed =
        fs::metadata(&hosts).map_or(true, |metadata| metadata.is_file() && metadata.len() == 0);
    if usable && needed {
        fs::write(&hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
        users.give_to_root(&hosts)?;
    }
    Ok(())
}

/// A whole file, if it is not longer than `limit` bytes.
pub(crate) fn read_bounded(path: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Whether a path of the image means inside its root what it means here: no part of it is a
/// symbolic link, which would be resolved in the agent's own root.
pub(crate) fn is_below_root(path: &Path) -> bool {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let mut prefix = Path::new(ROOT).to_owned();
    inside.components().all(|part| {
        prefix.push(part);
        !fs::symlink_metadata(&prefix).is_ok_and(|metadata| metadata.is_symlink())
    })
}

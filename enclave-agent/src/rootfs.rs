//! Mounts the measured squashfs, lays a tmpfs over it for what the workload writes, and fills in
//! what containers expect.

use crate::error::BootError;
use crate::mounts::WORKLOAD;
use crate::sys;
use nix::mount::{self, MsFlags};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use wire::control::AbortReason;

pub(crate) const ROOT: &str = "/run/root";
const IMAGE: &str = "/app/rootfs.squashfs";
const LOWER: &str = "/run/image";
const OVERLAY: &str = "/run/overlay";

pub(crate) fn mount() -> Result<(), BootError> {
    mount_image()?;
    for entry in &WORKLOAD {
        if !is_below_root(Path::new(entry.target)) {
            let detail = format!(
                "the image's {} is or is below a symbolic link",
                entry.target
            );
            return Err(BootError::new(AbortReason::RootFs, detail));
        }
        entry
            .mount_below(ROOT)
            .map_err(failed("cannot mount the kernel's file systems"))?;
    }
    populate_dev().map_err(failed("cannot populate /dev"))?;
    write_hosts().map_err(failed("cannot write /etc/hosts"))
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> BootError {
    BootError::of(AbortReason::RootFs, doing)
}

/// The squashfs, and the overlay on it at [`ROOT`].
fn mount_image() -> Result<(), BootError> {
    for directory in [ROOT, LOWER, OVERLAY] {
        fs::create_dir_all(directory).map_err(failed("cannot create a mount point"))?;
    }
    let device = sys::attach_loop(Path::new(IMAGE))
        .map_err(failed("cannot attach the image to a loop device"))?;
    let (read_only, none) = (MsFlags::MS_RDONLY, MsFlags::empty());
    mount::mount(
        Some(&device),
        LOWER,
        Some("squashfs"),
        read_only,
        None::<&str>,
    )
    .map_err(|e| failed("cannot mount the image")(e.into()))?;
    mount::mount(
        Some("tmpfs"),
        OVERLAY,
        Some("tmpfs"),
        none,
        Some("mode=0755"),
    )
    .map_err(|e| failed("cannot mount a tmpfs over the image")(e.into()))?;
    overlay().map_err(failed("cannot mount the overlay"))
}

fn overlay() -> io::Result<()> {
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
        MsFlags::empty(),
        Some(options.as_str()),
    )?)
}

/// Links that container engines provide too; what the image has stays.
fn populate_dev() -> io::Result<()> {
    let dev = Path::new(ROOT).join("dev");
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        match symlink(target, dev.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A hosts file, as container engines provide one; what the image has stays, unless it is empty.
fn write_hosts() -> io::Result<()> {
    let etc = Path::new(ROOT).join("etc");
    let hosts = etc.join("hosts");
    let usable = is_below_root(Path::new("/etc/hosts")) && etc.is_dir();
    let needed =
        fs::metadata(&hosts).map_or(true, |metadata| metadata.is_file() && metadata.len() == 0);
    if usable && needed {
        fs::write(hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
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

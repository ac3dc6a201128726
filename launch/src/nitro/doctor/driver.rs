//! The driver: whether the machine has its device, the module is loaded, and this user may open it.

use super::access::{self, DeviceNode, Me, WHAT};
use crate::nitro::driver::DEVICE;
use crate::nitro::host::Sysfs;
use api::Finding;
use std::fs::File;
use std::io;
use std::path::Path;

const MODULE: &str = "sys/module/nitro_enclaves";
const PCI_DEVICES: &str = "sys/bus/pci/devices";
/// The Nitro Enclaves device (drivers/virt/nitro_enclaves/ne_pci_dev.h and pci_ids.h).
const PCI_ID: (&str, &str) = ("0x1d0f", "0xe4c1");

pub(super) fn check(root: &Sysfs) -> Finding {
    let path = root.path(DEVICE.trim_start_matches('/'));
    let opened = File::options().read(true).write(true).open(&path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(root),
        opened => access::check(
            opened.map(drop),
            DeviceNode::of(&path).as_ref(),
            &Me::find(),
        ),
    }
}

/// Why there is no /dev/nitro_enclaves.
fn missing(root: &Sysfs) -> Finding {
    if !has_pci_device(root) {
        return Finding::wrong(
            WHAT,
            "this machine has no Nitro Enclaves device",
            "Launch an instance of a type that supports Nitro Enclaves, with enclave options enabled.",
        );
    }
    if !root.path(MODULE).exists() {
        return Finding::wrong(
            WHAT,
            "the module nitro_enclaves is not loaded",
            "Load it with 'modprobe nitro_enclaves', now and at each boot.",
        )
        .with_fix([
            "modprobe nitro_enclaves",
            "echo nitro_enclaves >/etc/modules-load.d/nitro_enclaves.conf",
        ]);
    }
    Finding::wrong(
        WHAT,
        format!("the module is loaded, but there is no {DEVICE}"),
        "Load the module again; 'dmesg' says why it could not use the device.",
    )
    .with_fix(["modprobe -r nitro_enclaves", "modprobe nitro_enclaves"])
}

fn has_pci_device(root: &Sysfs) -> bool {
    let devices = Path::new(PCI_DEVICES);
    root.names(devices).iter().any(|name| {
        let id = |file: &str| {
            let text = root.read(&devices.join(name).join(file));
            text.unwrap_or_default().trim().to_owned()
        };
        (id("vendor").as_str(), id("device").as_str()) == PCI_ID
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nitro::host::tree;

    const PCI: [(&str, &str); 2] = [
        ("sys/bus/pci/devices/0000:00:1e.0/vendor", "0x1d0f\n"),
        ("sys/bus/pci/devices/0000:00:1e.0/device", "0xe4c1\n"),
    ];

    fn detail(files: &[(&str, &str)]) -> Finding {
        let (_directory, root) = tree(files);
        check(&root)
    }

    #[test]
    fn a_machine_without_the_device_needs_another_machine() {
        let network = [
            ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1d0f\n"),
            ("sys/bus/pci/devices/0000:00:05.0/device", "0xec20\n"),
        ];
        for files in [&[][..], &network] {
            let finding = detail(files);
            assert_eq!(finding.detail, "this machine has no Nitro Enclaves device");
            assert!(finding.is_failed() && finding.fix.is_empty());
        }
    }

    #[test]
    fn a_module_that_is_not_loaded_is_loaded() {
        let finding = detail(&PCI);
        assert_eq!(finding.detail, "the module nitro_enclaves is not loaded");
        assert_eq!(finding.fix[0], "modprobe nitro_enclaves");
    }

    #[test]
    fn a_module_without_its_file_is_loaded_again() {
        let loaded = ("sys/module/nitro_enclaves/parameters/ne_cpus", "");
        let finding = detail(&[PCI[0], PCI[1], loaded]);
        assert!(finding.detail.starts_with("the module is loaded"));
        assert_eq!(finding.fix[0], "modprobe -r nitro_enclaves");
    }

    #[test]
    fn a_device_that_opens_will_do() {
        let finding = detail(&[("dev/nitro_enclaves", "")]);
        assert!(finding.to_string().starts_with("✓ driver: "), "{finding}");
    }
}

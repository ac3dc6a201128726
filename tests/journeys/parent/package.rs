//! The Debian package, on a machine that never had Redoubt: from its installation to its purge.

use super::Box;
use super::service::is_back;
use tests::parent::Parent;

#[test]
#[cfg_attr(not(parent), ignore = "needs the parent instance: run scripts/test")]
fn an_upgrade_of_the_package_brings_the_enclave_back() {
    let parent = Parent::boot();
    take_the_machines_own_away(&parent);
    let bare = traces(&parent);
    install(&parent, 1);
    assert_eq!(parent.ok("systemctl is-enabled host-proxy"), "enabled\n");
    assert_eq!(parent.ok("id -nG redoubt"), "redoubt ne\n");

    let scene = Box::with(parent, &[]);
    let before = scene.parent.free();
    scene.deployed("lasting");
    let with_one = scene.parent.free();
    install(&scene.parent, 2);
    is_back(&scene, &with_one);

    scene.parent.ok("dpkg --remove redoubt");
    assert_eq!(scene.parent.machine.hypervisor().slots(), 0);
    scene.parent.has_back(&before);
    // Only purge takes what an operator may want again.
    scene.parent.ok("test -e /var/lib/redoubt/redoubt.db");
    scene.parent.ok("dpkg --purge redoubt");
    assert_eq!(traces(&scene.parent), bare);
}

/// The programs of this machine are links into a disk, and its unit is one, too.
fn take_the_machines_own_away(parent: &Parent) {
    parent.ok("systemctl disable --now host-proxy");
    parent.ok(
        "rm /usr/bin/{host-proxy,enclavectl,attest,eif-builder} /usr/lib/redoubt \
         /usr/lib/sysusers.d/redoubt.conf",
    );
    parent.ok("rm -rf /etc/redoubt /var/lib/redoubt && userdel redoubt && systemctl daemon-reload");
}

/// The service runs from the files of this version afterwards.
fn install(parent: &Parent, version: u32) {
    parent.ok(&format!(
        "dpkg --install /opt/redoubt/packages/redoubt_{version}_amd64.deb"
    ));
    let installed = parent.ok("dpkg-query --show --showformat '${Version}' redoubt");
    assert_eq!(installed, version.to_string());
    parent.ok("systemctl is-active host-proxy");
    // A file that was replaced is "(deleted)" here.
    let program = parent.ok("readlink /proc/$(systemctl show host-proxy -p MainPID --value)/exe");
    assert_eq!(program, "/usr/bin/host-proxy\n");
}

/// Every file with a name of ours.
fn traces(parent: &Parent) -> String {
    parent.ok("find /etc /usr /var -path '*redoubt*' -o -path '*host-proxy*' | sort")
}

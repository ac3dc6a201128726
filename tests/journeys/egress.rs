//! What leaves an enclave.

use crate::deploy::web_image;
use std::sync::atomic::Ordering;
use tests::scene::Scene;
use tests::tcp::outside;
use tests::wait_for;
use tests::workloads::SPEC;

#[test]
#[cfg_attr(not(sandbox), ignore = "needs the sandbox: run scripts/test")]
fn what_leaves_an_enclave_is_in_its_spec_and_allowed_by_its_host() {
    let scene = Scene::new(&web_image(), "org/web:v1");
    let (port, asked) = outside();
    let spec = format!(
        "{SPEC}[run]\ncommand = ['/bin/sh', '-c', 'echo \"got: $(echo hi | busybox nc 127.0.0.1 5432)\"; busybox sleep 1000']\n\
         [network]\negress = ['127.0.0.1:{port}']\nforward = [{{ listen = '127.0.0.1:5432', to = '127.0.0.1:{port}' }}]\n"
    );
    for (setting, wanted, connections) in [
        ("[]", "got: \n", 0),
        ("['127.0.0.1/32']", "got: from outside\n", 1),
    ] {
        let daemon = scene.start(&[("HOST_PROXY_EGRESS__ALLOW_NETWORKS", setting)]);
        let created = daemon.create("out", &scene.reference, &spec);
        assert_eq!(created.code, 0, "{created:?}");
        wait_for("the answer", 30, || !daemon.logs("out").is_empty());
        let said = daemon.logs("out");
        assert!(said.ends_with(wanted), "with {setting} it said {said}");
        assert_eq!(asked.load(Ordering::Relaxed), connections);
    }
}

//! PID 1 of an enclave.
//!
//! The sequence: [`boot`] mounts what the kernel needs, tells the host that it is alive, and reads
//! the measured spec; [`rootfs`] mounts the image; [`config`] opens the sealed config, if the spec
//! asks for one; [`workload`] runs the image's program; [`service`] keeps it running as the spec says
//! and reports to the host until it has ended for good. Then the enclave powers off. Whatever goes wrong, the host gets the reason,
//! and the enclave powers off all the same: it never runs on in a state that was not measured.
//!
//! The agent talks over vsock only. It trusts nothing that comes from there; what it may do is in
//! the measured spec.

mod attest;
mod boot;
mod boundary;
mod bucket;
mod capacity;
mod config;
mod console;
mod control;
mod document;
mod egress;
mod error;
mod forward;
mod gates;
mod ingress;
mod initrd;
mod listen;
mod mounts;
mod network;
mod nsm;
mod output;
mod parent;
mod rootfs;
mod service;
mod sys;
mod user;
mod workload;

fn main() {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() == Some(boundary::INIT) {
        let (group, users) = (arguments.next(), arguments.next());
        return boundary::run_init(group.as_deref(), users.as_deref());
    }
    if std::process::id() != 1 {
        console::say(
            "enclave-agent is the first process of an enclave; it does nothing anywhere else",
        );
        return;
    }
    // One thread, and the NSM's: a child between fork and exec may use memory freely, and 16 MiB are
    // enough for all of this. The threads that enter a namespace end before anything is started.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(boot::live()),
        Err(error) => console::say(&format!("cannot start: {error}")),
    }
    sys::power_off();
}

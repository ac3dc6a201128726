//! The system calls that the workload cannot make.
//!
//! A list of refusals rather than of permissions: programs differ, while the kernel is ours and
//! measured. What a list of refusals cannot know, calls newer than itself, is refused by number.

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;
use std::io;

/// The first number that this list does not know: Linux 6.12 ends with mseal, 462. The x32 calls,
/// numbered from 2^30, are above it too.
const UNKNOWN: u32 = 463;

/// Refused with EPERM, as container engines do.
const REFUSED: &[libc::c_long] = &[
    // file systems
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // namespaces
    libc::SYS_unshare,
    libc::SYS_setns,
    // the kernel and what it keeps
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // other processes
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[libc::SYS_kexec_file_load];

/// As if the kernel had none: programs then do without. The flags of clone3 are in memory, where no
/// filter can look; C libraries fall back to clone.
const ABSENT: [libc::c_long; 4] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
];

/// Families of sockets that programs in an enclave have a use for. Netlink in part: see
/// [`families`].
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];
const NEW_NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// linux/ptrace.h, PTRACE_ATTACH and PTRACE_SEIZE. A process may still be traced that asked for it
/// before exec.
const ATTACH: [u64; 2] = [16, 0x4206];
/// asm-generic/ioctls.h: input for another's terminal.
const TIOCSTI: u64 = 0x5412;
/// `persona` of personality(2): the default, 32 bits with and without the old layout, and the
/// question. Others turn protections of memory off.
const PERSONALITIES: [u64; 5] = [0, 8, 0x20000, 0x20008, 0xffff_ffff];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters, to be applied in order. `tracing` leaves debuggers alone.
pub(super) fn filters(tracing: bool) -> io::Result<Vec<BpfProgram>> {
    let failed = |error: seccompiler::BackendError| io::Error::other(error);
    let refused = refused(tracing).map_err(failed)?;
    let absent = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![
        newest(),
        compile(families().map_err(failed)?, libc::EAFNOSUPPORT).map_err(failed)?,
        compile(absent, libc::ENOSYS).map_err(failed)?,
        compile(refused, libc::EPERM).map_err(failed)?,
    ])
}

fn compile(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)?.try_into()
}

fn refused(tracing: bool) -> Result<Rules, seccompiler::BackendError> {
    let always = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: Rules = always.map(|call| (*call, Vec::new())).collect();
    let flag = |flag: &libc::c_int| {
        let bit = u64::from(flag.unsigned_abs());
        rule(&[(0, SeccompCmpOp::MaskedEq(bit), bit)])
    };
    let namespaces = NEW_NAMESPACES.iter().map(flag).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(&[(1, SeccompCmpOp::Eq, TIOCSTI)])?],
    );
    let other = PERSONALITIES.map(|known| (0, SeccompCmpOp::Ne, known));
    rules.insert(libc::SYS_personality, vec![rule(&other)?]);
    if !tracing {
        let attach = |request: u64| rule(&[(0, SeccompCmpOp::Eq, request)]);
        let attaching = ATTACH.into_iter().map(attach).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_ptrace, attaching);
    }
    Ok(rules)
}

/// Sockets of other families, AF_VSOCK first of all; of netlink all but routes, which C libraries
/// ask for addresses.
fn families() -> Result<Rules, seccompiler::BackendError> {
    let number = |family: libc::c_int| u64::from(family.unsigned_abs());
    let other = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, number(family)));
    let netlink = [
        (0, SeccompCmpOp::Eq, number(libc::AF_NETLINK)),
        (2, SeccompCmpOp::Ne, number(libc::NETLINK_ROUTE)),
    ];
    let pair = [(0, SeccompCmpOp::Ne, number(libc::AF_UNIX))];
    Ok(Rules::from([
        (libc::SYS_socket, vec![rule(&other)?, rule(&netlink)?]),
        (libc::SYS_socketpair, vec![rule(&pair)?]),
    ]))
}

/// Holds if all conditions on arguments do.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// Calls above the known ones do not exist: four instructions, since the compiler knows single
/// numbers only (Documentation/userspace-api/seccomp_filter.rst; linux/bpf_common.h).
fn newest() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let absent = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    vec![
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 0, 1, UNKNOWN),
        instruction(RETURN, 0, 0, absent),
        instruction(RETURN, 0, 0, u32::from(SeccompAction::Allow)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles_and_is_short_enough_for_the_kernel() {
        for tracing in [false, true] {
            let filters = filters(tracing).unwrap();
            // linux/bpf_common.h, BPF_MAXINSNS
            assert!(filters.iter().all(|program| program.len() <= 4096));
        }
    }

    #[test]
    fn attaching_is_refused_unless_the_workload_may_trace() {
        assert!(refused(false).unwrap().contains_key(&libc::SYS_ptrace));
        assert!(!refused(true).unwrap().contains_key(&libc::SYS_ptrace));
    }
}

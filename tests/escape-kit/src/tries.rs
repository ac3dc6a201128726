//! The tries, each with the sentence that a test asserts.

use crate::Attempt;
use crate::sys::call;
use nix::libc;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// What must be refused.
pub(crate) const FORBIDDEN: &[(&str, Attempt)] = &[
    ("opens a vsock socket", || {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    ("opens a pair of vsock sockets", || {
        let mut pair = [0_i32; 2];
        call(
            libc::SYS_socketpair,
            [
                number(libc::AF_VSOCK),
                1,
                0,
                pair.as_mut_ptr() as usize,
                0,
                0,
            ],
        )
    }),
    ("opens a raw socket", || {
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    ("opens a raw IPv6 socket", || {
        socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)
    }),
    ("opens a packet socket", || {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    ("opens a socket of the kernel's crypto", || {
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
    }),
    ("opens a netlink socket for audit", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)
    }),
    ("takes an interface down", || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        let request = request.as_ptr() as usize;
        call(
            libc::SYS_ioctl,
            [number(socket.as_raw_fd()), 0x8914, request, 0, 0, 0],
        )
    }),
    ("opens the NSM", || open("/dev/nsm")),
    ("opens the vsock device", || open("/dev/vsock")),
    ("opens the kernel log", || open("/dev/kmsg")),
    ("opens the console", || open("/dev/console")),
    ("opens physical memory", || open("/dev/mem")),
    ("opens the control of loop devices", || {
        open("/dev/loop-control")
    }),
    ("opens the image's loop device", || open("/dev/loop0")),
    ("opens a device node of the image", || open("/node")),
    ("makes a device node", || {
        mknod("/tmp/node", libc::S_IFCHR, libc::makedev(1, 11))
    }),
    ("makes a block device node", || {
        mknod("/tmp/block", libc::S_IFBLK, libc::makedev(7, 0))
    }),
    ("reads the memory of PID 1", || open("/proc/1/mem")),
    ("reads the environment of PID 1", || read("/proc/1/environ")),
    ("looks through the root of PID 1", || {
        read("/proc/1/root/init")
    }),
    ("reads the agent's ramdisk", || read("/app/enclave.json")),
    ("reads kernel memory", || read_some("/proc/kcore")),
    ("attaches to PID 1", || {
        call(libc::SYS_ptrace, [16, 1, 0, 0, 0, 0])
    }),
    ("seizes PID 1", || {
        call(libc::SYS_ptrace, [0x4206, 1, 0, 0, 0, 0])
    }),
    ("copies the memory of PID 1", || {
        let mut byte = 0_u8;
        let part = [&raw mut byte as usize, 1];
        let part = part.as_ptr() as usize;
        call(libc::SYS_process_vm_readv, [1, part, 1, part, 1, 0])
    }),
    ("takes a descriptor of PID 1", || {
        let process = call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0])?;
        call(libc::SYS_pidfd_getfd, [process, 0, 0, 0, 0, 0])
    }),
    ("kills PID 1", || call(libc::SYS_kill, [1, 9, 0, 0, 0, 0])),
    ("kills everything", || {
        call(libc::SYS_kill, [usize::MAX, 9, 0, 0, 0, 0])
    }),
    ("mounts a file system", || mount("tmpfs", "/tmp", 0)),
    ("mounts another view of processes", || {
        mount("proc", "/tmp", 0)
    }),
    ("makes the file systems of the kernel writable", || {
        mount("sysfs", "/sys", 0x20)
    }),
    ("unmounts a file system", || {
        call(libc::SYS_umount2, [text(c"/proc/sys"), 2, 0, 0, 0, 0])
    }),
    ("opens a file system context", || {
        call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0, 0])
    }),
    ("copies a mount", || {
        call(libc::SYS_open_tree, [usize::MAX, text(c"/"), 1, 0, 0, 0])
    }),
    ("moves the root", || {
        call(
            libc::SYS_pivot_root,
            [text(c"/tmp"), text(c"/tmp"), 0, 0, 0, 0],
        )
    }),
    ("changes the root", || {
        call(libc::SYS_chroot, [text(c"/tmp"), 0, 0, 0, 0, 0])
    }),
    ("opens a file by handle", || {
        let handle = [8_u32, 1, 0, 0];
        let handle = handle.as_ptr() as usize;
        call(
            libc::SYS_open_by_handle_at,
            [usize::MAX, handle, 0, 0, 0, 0],
        )
    }),
    ("joins a namespace", || {
        let namespace = File::open("/proc/self/ns/net")?;
        call(
            libc::SYS_setns,
            [number(namespace.as_raw_fd()), 0, 0, 0, 0, 0],
        )
    }),
    ("makes a user namespace", || unshare(libc::CLONE_NEWUSER)),
    ("makes a mount namespace", || unshare(libc::CLONE_NEWNS)),
    ("clones into a user namespace", || {
        let flags = number(libc::CLONE_NEWUSER | libc::SIGCHLD);
        child(call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])?)
    }),
    ("clones with flags in memory", || {
        let mut arguments = [0_u64; 11];
        arguments[0] = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        arguments[4] = 17;
        child(call(
            libc::SYS_clone3,
            [arguments.as_ptr() as usize, 88, 0, 0, 0, 0],
        )?)
    }),
    ("sets up io_uring", || {
        let mut parameters = [0_u8; 120];
        call(
            libc::SYS_io_uring_setup,
            [1, parameters.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    }),
    ("loads a BPF program", || {
        call(libc::SYS_bpf, [5, 0, 0, 0, 0, 0])
    }),
    ("catches page faults", || {
        call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0])
    }),
    ("watches performance counters", || {
        call(libc::SYS_perf_event_open, [0; 6])
    }),
    ("uses the kernel's keyrings", || {
        call(libc::SYS_keyctl, [0, 0, 0, 0, 0, 0])
    }),
    ("loads a module", || call(libc::SYS_init_module, [0; 6])),
    ("loads another kernel", || {
        call(libc::SYS_kexec_load, [0; 6])
    }),
    ("reboots", || {
        call(
            libc::SYS_reboot,
            [0xfee1_dead, 672_274_793, 0x0123_4567, 0, 0, 0],
        )
    }),
    ("sets the clock", || {
        let time = [0_i64; 2];
        call(
            libc::SYS_clock_settime,
            [0, time.as_ptr() as usize, 0, 0, 0, 0],
        )
    }),
    ("sets the host name", || {
        call(libc::SYS_sethostname, [text(c"x"), 1, 0, 0, 0, 0])
    }),
    ("writes a setting of the kernel", || {
        write("/proc/sys/kernel/core_pattern", "|/x")
    }),
    ("writes a setting of the network", || {
        write("/proc/sys/net/ipv4/ip_forward", "1")
    }),
    ("triggers a magic key", || write("/proc/sysrq-trigger", "b")),
    ("writes a setting of a device", || {
        write("/sys/class/net/lo/mtu", "1")
    }),
    ("raises its limit of processes", || {
        write("/sys/fs/cgroup/pids.max", "max")
    }),
    ("raises its limit of memory", || {
        write("/sys/fs/cgroup/memory.max", "max")
    }),
    ("makes a control group", || {
        std::fs::create_dir("/sys/fs/cgroup/x").map(|()| 0)
    }),
    ("is spared when memory runs out", || {
        write("/proc/self/oom_score_adj", "-1000")
    }),
    ("takes capabilities", || {
        let (header, sets) = ([0x2008_0522_u32, 0], [u32::MAX; 6]);
        call(
            libc::SYS_capset,
            [header.as_ptr() as usize, sets.as_ptr() as usize, 0, 0, 0, 0],
        )
    }),
    ("gains rights by a set-user-ID program", set_user_id),
    ("gains rights by a program with capabilities", || {
        let said = Command::new("/escape-kit-capable").arg("--who").output()?;
        let whoever = nix::unistd::geteuid().to_string();
        let same = String::from_utf8_lossy(&said.stdout).trim() == whoever;
        refused_if(same && no_new_rights())
    }),
    ("uses the ports of the machine", || {
        call(libc::SYS_iopl, [3, 0, 0, 0, 0, 0])
    }),
    ("turns address randomisation off", || {
        call(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0])
    }),
    ("makes a call of another convention", || {
        call(0x4000_0000 + 39, [0; 6])
    }),
    ("makes a call that is newer than the list", || {
        call(463, [0; 6])
    }),
];

/// What must work.
pub(crate) const ORDINARY: &[(&str, Attempt)] = &[
    ("listens on port 80", || {
        done(TcpListener::bind("0.0.0.0:80"))
    }),
    ("asks for routes", || {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)
    }),
    ("writes to /dev/null", || write("/dev/null", "x")),
    ("reads random bytes", || open("/dev/urandom")),
    ("opens a terminal", || open("/dev/ptmx")),
    ("writes to /tmp", || done(std::fs::write("/tmp/file", "x"))),
    ("writes shared memory", || {
        done(std::fs::write("/dev/shm/file", "x"))
    }),
    ("opens its output by name", || write("/dev/stdout", "")),
    ("sees itself in /proc", || read("/proc/self/status")),
    ("sees its own limits", || read("/sys/fs/cgroup/memory.max")),
    ("starts a thread", || {
        let thread = std::thread::Builder::new().spawn(|| 0)?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    }),
    ("runs a program", || {
        done(Command::new("/escape-kit").arg("--who").output())
    }),
];

fn number(value: libc::c_int) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn text(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr() as usize
}

fn done<T>(result: io::Result<T>) -> io::Result<usize> {
    result.map(|_| 0)
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<usize> {
    let arguments = [number(family), number(kind), number(protocol), 0, 0, 0];
    call(libc::SYS_socket, arguments)
}

fn open(path: &str) -> io::Result<usize> {
    done(
        OpenOptions::new()
            .read(true)
            .write(path.starts_with("/dev"))
            .open(path),
    )
}

fn read(path: &str) -> io::Result<usize> {
    std::fs::read(path).map(|bytes| bytes.len())
}

/// Files of devices end nowhere; a masked one ends at once.
fn read_some(path: &str) -> io::Result<usize> {
    let mut byte = [0];
    let n = io::Read::read(&mut File::open(path)?, &mut byte)?;
    if n == 0 {
        return Err(io::Error::other("it is empty"));
    }
    Ok(n)
}

/// Opening may be allowed where writing is not.
fn write(path: &str, value: &str) -> io::Result<usize> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    if std::os::unix::fs::FileTypeExt::is_char_device(&file.metadata()?.file_type())
        && path.starts_with("/proc")
    {
        return Err(io::Error::other("it is masked"));
    }
    file.write(value.as_bytes())
}

fn mknod(path: &str, kind: libc::mode_t, device: libc::dev_t) -> io::Result<usize> {
    let path = std::ffi::CString::new(path)?;
    let mode = usize::try_from(kind | 0o666).unwrap_or_default();
    let device = usize::try_from(device).unwrap_or_default();
    call(
        libc::SYS_mknodat,
        [
            number(libc::AT_FDCWD),
            path.as_ptr() as usize,
            mode,
            device,
            0,
            0,
        ],
    )
}

fn mount(kind: &str, target: &str, flags: usize) -> io::Result<usize> {
    let (kind, target) = (
        std::ffi::CString::new(kind)?,
        std::ffi::CString::new(target)?,
    );
    let kind = kind.as_ptr() as usize;
    call(
        libc::SYS_mount,
        [kind, target.as_ptr() as usize, kind, flags, 0, 0],
    )
}

fn unshare(flags: libc::c_int) -> io::Result<usize> {
    call(libc::SYS_unshare, [number(flags), 0, 0, 0, 0, 0])
}

/// A clone that was made: the child ends at once.
fn child(pid: usize) -> io::Result<usize> {
    if pid == 0 {
        call(libc::SYS_exit_group, [0; 6])?;
    }
    Ok(pid)
}

fn set_user_id() -> io::Result<usize> {
    let said = Command::new("/escape-kit-root").arg("--who").output()?;
    let whoever = nix::unistd::geteuid().to_string();
    refused_if(String::from_utf8_lossy(&said.stdout).trim() == whoever)
}

fn no_new_rights() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line == "NoNewPrivs:\t1")
}

fn refused_if(refused: bool) -> io::Result<usize> {
    if refused {
        Err(io::Error::other("it runs without"))
    } else {
        Ok(0)
    }
}

//! The system calls that the standard library does not offer, each behind a safe function. The only file with
//! `unsafe`. Knows nothing of what it is used for; called by every other part of the daemon.

use std::{
    ffi::{CStr, CString, c_int},
    io, mem,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
    ptr,
    time::Duration,
};

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Tells whether an operation only has to be tried again later.
pub(crate) fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Tells which of many descriptors are ready.
pub(crate) struct Epoll(OwnedFd);

/// What an [`Epoll`] reports.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// When a descriptor is reported.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// As long as it is readable.
    Read,
    /// As long as it is readable or writable.
    ReadWrite,
    /// As long as it is writable.
    Write,
    /// Once each time that it becomes readable or writable.
    Edge,
    /// Never.
    Nothing,
}

impl Interest {
    fn events(self) -> u32 {
        (match self {
            Self::Read => libc::EPOLLIN,
            Self::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
            Self::Write => libc::EPOLLOUT,
            Self::Edge => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
            Self::Nothing => 0,
        }) as u32
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    pub(crate) fn add(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), interest, token)
    }

    pub(crate) fn modify(&self, fd: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), interest, token)
    }

    fn control(&self, operation: c_int, fd: RawFd, interest: Interest, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.events(), u64: token };
        // SAFETY: the event lives through the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }

    /// Waits for at most `limit` and fills `ready`.
    pub(crate) fn wait(&self, ready: &mut Vec<Ready>, limit: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let limit = milliseconds(limit);
        // SAFETY: the kernel writes at most 64 events, for which there is room.
        let count = match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 64, limit) }) {
            Ok(count) => count as usize,
            Err(error) if again(&error) => 0,
            Err(error) => return Err(error),
        };
        let any = |events: u32, of: c_int| events & of as u32 != 0;
        for event in &events[..count] {
            let (events, token) = (event.events, event.u64);
            let ended = any(events, libc::EPOLLHUP | libc::EPOLLERR);
            ready.push(Ready {
                token,
                readable: ended || any(events, libc::EPOLLIN | libc::EPOLLRDHUP),
                writable: ended || any(events, libc::EPOLLOUT),
            });
        }
        Ok(())
    }
}

fn milliseconds(limit: Option<Duration>) -> c_int {
    // Rounded up: waking early would only mean to wait once more.
    limit.map_or(-1, |limit| c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX))
}

/// One descriptor for [`poll`].
pub(crate) fn poll_entry(fd: Option<&impl AsRawFd>, read: bool, write: bool) -> libc::pollfd {
    let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
    // The kernel passes over a negative descriptor.
    libc::pollfd { fd: fd.map_or(-1, AsRawFd::as_raw_fd), events, revents: 0 }
}

/// Waits for any of `entries`, for at most `limit`.
pub(crate) fn poll(entries: &mut [libc::pollfd], limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: pointer and length are the slice's, the limit lives through the call. An interruption is like a timeout:
    // the caller looks again.
    unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, limit, ptr::null()) };
}

/// Puts every signal back to its default, whatever this process was started with, but lets writes to closed
/// connections fail without one.
pub(crate) fn reset_signals() {
    // SAFETY: takes no pointer; no handler of ours is involved.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Blocks `signals` and returns a descriptor that reports them.
pub(crate) fn take_signals(signals: &[c_int]) -> io::Result<OwnedFd> {
    // SAFETY: a zeroed set is valid and then initialised; all pointers live through the calls.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()))?;
        owned(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

/// Reads the next signal from [`take_signals`]' descriptor.
pub(crate) fn next_signal(fd: &OwnedFd) -> Option<c_int> {
    // The record begins with the signal's number.
    let mut record = [0; size_of::<libc::signalfd_siginfo>()];
    let whole = read(fd, &mut record).is_ok_and(|read| read == record.len());
    let number = record.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes).cast_signed());
    number.filter(|_| whole)
}

/// Lets a new program have no signal blocked and none ignored. For the time between fork and exec.
pub(crate) fn release_signals() {
    // SAFETY: as in `take_signals`.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Makes a pipe that is closed at exec, and returns its reading and its writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are ours once made.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Asks for a pipe's buffer of `size` bytes; the kernel may have reasons against it.
pub(crate) fn enlarge_pipe(fd: &OwnedFd, size: c_int) {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
}

/// Gives a descriptor's file to another user.
pub(crate) fn give(fd: &OwnedFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) }).map(drop)
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// Makes two connected sockets that keep the bounds of messages.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, which are ours once made.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Room for one descriptor beside a message, aligned as the kernel wants it.
#[repr(align(8))]
struct Ancillary([u8; 64]);

/// Sends one message, with a descriptor if there is one.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], passed: Option<BorrowedFd<'_>>, wait: bool) -> io::Result<()> {
    let mut room = Ancillary([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: all pointers live through the call; `room` holds one header with one descriptor (CMSG_SPACE(4) is 24).
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some(passed) = passed {
            message.msg_control = room.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(passed.as_raw_fd());
        }
        check(libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) as c_int).map(drop)
    }
}

/// Receives one message without waiting: its length (0 at the end) and the descriptor that came with it.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut room = Ancillary([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all pointers live through the call; a descriptor that came is ours alone.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = room.0.len() as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let length = check(libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) as c_int)?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let passed =
            if !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS
            {
                Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
            } else {
                None
            };
        Ok((length as usize, passed))
    }
}

/// Connects to a Unix socket without waiting: a full queue is an error like nobody listening.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: the address is zeroed, the path checked to fit with its closing NUL, and both live through the call.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = owned(libc::socket(libc::AF_UNIX, kind, 0))?;
        let mut address: libc::sockaddr_un = mem::zeroed();
        if bytes.len() >= address.sun_path.len() {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
            *place = (*byte).cast_signed() as libc::c_char;
        }
        let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        check(libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size))?;
        Ok(UnixStream::from(socket))
    }
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks. Sound here because the daemon has one thread: the child may allocate.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: no other thread exists that could hold a lock.
    Ok(match check(unsafe { libc::fork() })? {
        0 => Fork::Child,
        pid => Fork::Parent(pid),
    })
}

/// Ends this process at once, without running anything of the parent's that it holds a copy of.
pub(crate) fn quit(code: c_int) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// What [`reap`] found.
pub(crate) enum Reaped {
    /// This child has ended, with this wait status.
    Child(i32, c_int),
    /// Children are left, none has ended.
    None,
    /// There are no children.
    Childless,
}

/// Collects one child that has ended, without waiting.
pub(crate) fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::None,
        pid if pid > 0 => Reaped::Child(pid, status),
        _ => Reaped::Childless,
    }
}

/// Sends a signal; that the process is gone is no error.
pub(crate) fn kill(pid: i32, signal: c_int) {
    // SAFETY: takes no pointer.
    unsafe { libc::kill(pid, signal) };
}

/// Sets one of a process's own switches. The kernel reads whole words, also where an `int` is half of one.
fn control(switch: c_int, value: c_int) -> io::Result<()> {
    let (value, none) = (libc::c_ulong::from(value.cast_unsigned()), 0 as libc::c_ulong);
    // SAFETY: none of the switches used here takes a pointer.
    check(unsafe { libc::prctl(switch, value, none, none, none) }).map(drop)
}

/// Makes this process the one that orphans among its descendants fall to, and ends it with its parent.
pub(crate) fn become_subreaper() {
    // Neither can fail on a kernel that has containers.
    let _ = control(libc::PR_SET_CHILD_SUBREAPER, 1);
    end_with_parent();
}

/// Ends this process with its parent. A change of user undoes it, so it comes after that.
pub(crate) fn end_with_parent() {
    let _ = control(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
}

/// Closes this process's memory and `/proc` entries to the other users.
pub(crate) fn hide() {
    let _ = control(libc::PR_SET_DUMPABLE, 0);
}

/// Returns a variable of the environment, and leaves blanks in its place: `/proc` shows the memory in which the kernel has put
/// it. Called before there are threads.
pub(crate) fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    let mut wanted = name.as_bytes().to_vec();
    wanted.push(b'=');
    // SAFETY: `environ` is a list of C strings that ends with a null, in memory that is this process's to write, and no other
    // thread reads it. Their lengths stay; what follows the name becomes blanks.
    unsafe {
        unsafe extern "C" {
            static environ: *mut *mut libc::c_char;
        }
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = libc::strlen(*entry);
            let text = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if text.starts_with(&wanted) {
                for byte in &mut text[wanted.len()..] {
                    ptr::write_volatile(byte, b' ');
                }
            }
            entry = entry.add(1);
        }
    }
    value
}

/// Gives every new file the usual mode, and writes no core files.
pub(crate) fn set_habits() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives through the call. `mallopt` keeps large blocks out of the heap, so that they go back.
    unsafe {
        libc::umask(0o022);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        #[cfg(target_env = "gnu")]
        {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
        }
    }
}

/// Does something with files with the rights of this user, and not at all if they cannot be taken on. Nobody can signal or
/// trace this process meanwhile: its real and saved ids stay. (`setfsuid`, which is made for this, is missing in gVisor, and
/// does not say so.)
pub(crate) fn with_rights_of<T>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    const SAME: u32 = u32::MAX;
    // SAFETY: these take no pointer.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: takes no pointer.
    let become_user = |uid| check(unsafe { libc::setresuid(SAME, uid, SAME) });
    // SAFETY: takes no pointer.
    let join_group = |gid| check(unsafe { libc::setresgid(SAME, gid, SAME) });
    join_group(gid)?;
    let done = become_user(uid).and_then(|_| work());
    become_user(user).and_then(|_| join_group(group))?;
    done
}

/// Puts `fds` at 0, 1, … for the next program, the last of them closed when it starts, and closes all others. None of
/// `fds` may be below the place it goes to.
pub(crate) fn keep_for_exec(fds: &[RawFd]) -> io::Result<()> {
    for (place, fd) in fds.iter().enumerate() {
        let last = place + 1 == fds.len();
        // SAFETY: these take no pointer; nothing in this process uses the replaced descriptors again.
        unsafe {
            if *fd == place as c_int {
                check(libc::fcntl(*fd, libc::F_SETFD, if last { libc::FD_CLOEXEC } else { 0 }))?;
            } else {
                check(libc::dup3(*fd, place as c_int, if last { libc::O_CLOEXEC } else { 0 }))?;
            }
        }
    }
    close_range(fds.len() as c_int, c_int::MAX);
    Ok(())
}

/// Closes every descriptor from 3 on but those in `keep`: in a fork that goes on with nothing else of its parent's.
pub(crate) fn close_all_but(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, c_int::MAX);
}

fn close_range(first: c_int, last: c_int) {
    // SAFETY: takes no pointer; the callers use nothing in the range again.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            // A kernel before 5.9, or a filter that does not know the call.
            let end = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 65536) as c_int;
            for fd in first..=last.min(end) {
                libc::close(fd);
            }
        }
    }
}

/// Starts a session of its own, and gives way to sandboxd and its wardens (the niceness counts within the container).
pub(crate) fn start_session(niceness: c_int) {
    // SAFETY: these take no pointer.
    unsafe {
        libc::setsid();
        libc::setpriority(libc::PRIO_PROCESS, 0, niceness);
    }
}

/// Becomes another user for good, with no capability left.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    #[repr(C)]
    struct Header(u32, c_int);
    // A kernel that knows no ambient capabilities has none to clear.
    let _ = control(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL);
    for capability in 0..64 {
        // Needs SETPCAP, which a room's container does not have; what stays in the bounding set cannot be gained
        // without new privileges, and those are forbidden.
        if control(libc::PR_CAPBSET_DROP, capability).is_err() {
            break;
        }
    }
    // SAFETY: pointers and lengths belong together and live through the calls.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))?;
        // The change of user has emptied all but the inheritable set.
        let (header, nothing) = (Header(0x2008_0522, 0), [0_u32; 6]);
        if libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Puts this process into a user namespace of its own, where it would have every capability.
pub(crate) fn enter_new_user_namespace() -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// Forbids this process and its children to gain privileges by a program they start.
pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    control(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Replaces this process's program; returns only what went wrong.
pub(crate) fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in a null pointer and live through the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Fills a buffer with random bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: pointer and length are the buffer's; so few bytes come in one piece.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if got == N as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Reads without the standard library's buffering or type; 0 at the end.
pub(crate) fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are the buffer's.
    let read = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes what the kernel takes.
pub(crate) fn write(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are the slice's.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Goes to a directory.
pub(crate) fn change_directory(path: &CStr) -> io::Result<()> {
    // SAFETY: the path lives through the call.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// Returns this process's user and group.
#[cfg(test)]
pub(crate) fn ids() -> (u32, u32) {
    // SAFETY: these take no pointer.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

//! What keeps a sandbox apart from the others and from the host.

use matrix_agent::sandbox::{Attempt, Command, Exit};

use crate::house::{House, is_gvisor, root, run, sh, shell, text};

#[tokio::test(flavor = "multi_thread")]
async fn two_rooms_cannot_see_each_other() {
    let house = House::new();
    let fleet = house.open().await;
    let (here, there) = (house.room("here"), house.room("there"));
    let (a, b) = tokio::join!(fleet.ensure(&here), fleet.ensure(&there));
    let (a, b) = (a.unwrap(), b.unwrap());
    sh(&a, "echo secret > /workspace/secret; echo secret > /tmp/secret; echo secret > ~/secret").await;
    let sleeper = Command { background: true, argv: ["sleep", "4321"].map(str::to_owned).into(), ..shell("") };
    let _sleeper = a.spawn(sleeper).await.unwrap();

    let nobody = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; done; \
        ls /workspace ~ /tmp /run/volume";
    let seen = sh(&b, nobody).await;
    assert!(!seen.contains("4321") && !seen.contains("secret"), "{seen}");
    let interfaces = sh(&b, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
    assert_eq!(interfaces, "lo", "one interface, the loopback");
    let seen = text(&run(&b, root("find / -xdev -name secret; ls -A /run/volume; kill -0 -1 && echo killed")).await);
    assert!(!seen.contains("secret"), "{seen}");

    let (a, b) = tokio::join!(fleet.observe(&here), fleet.observe(&there));
    let (a, b) = (a.unwrap().outside.unwrap(), b.unwrap().outside.unwrap());
    assert!(a.uid_map[0][1].abs_diff(b.uid_map[0][1]) >= 65_536, "{:?} {:?}", a.uid_map, b.uid_map);
    assert!(a.uid != 0 && b.uid != 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn colliding_names_are_told_apart() {
    let house = House::new();
    let fleet = house.open().await;
    let (colon, dash) = (house.room("x:y"), house.room("x-y"));
    let (a, b) = (fleet.ensure(&colon).await.unwrap(), fleet.ensure(&dash).await.unwrap());
    sh(&a, "echo colon > /workspace/who").await;
    sh(&b, "echo dash > /workspace/who").await;
    assert_eq!(sh(&a, "cat /workspace/who").await, "colon");
    let names: Vec<_> = fleet.list().await.unwrap().into_iter().map(|sandbox| sandbox.name).collect();
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("sandbox-x-y-test-")), "{names:?}");

    // Another server has a room of the same name on the same Podman.
    let other = House::new();
    let sandbox = other.open().await.ensure(&colon).await.unwrap();
    assert_eq!(sh(&sandbox, "ls /workspace").await, "");
    assert!(other.containers().is_disjoint(&house.containers()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hardening_is_what_is_observed() {
    let house = House::with(|options| options.ca_bundle = Some("/etc/ssl/certs/ca-certificates.crt".into()));
    let fleet = house.open().await;
    let room = house.room("hard");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let seen = fleet.observe(&room).await.unwrap();
    let inside = seen.inside.clone().unwrap();
    assert_eq!((inside.uid, inside.gid), (1000, 1000));
    assert_eq!(inside.capabilities, [] as [&str; 0]);
    assert!(inside.no_new_privileges && inside.seccomp);
    assert_eq!(inside.interfaces, ["lo"]);
    assert_eq!(inside.boot_id, sandbox.boot_id());

    let outside = seen.outside.clone().unwrap();
    let expected = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];
    // What is seen from outside of gVisor is gVisor, which has more than that in its user namespace; its PID 1 has this.
    assert!(is_gvisor() || outside.capabilities == expected, "{outside:?}");
    assert!(outside.no_new_privileges && outside.seccomp && outside.uid > 65_535);
    assert_eq!(outside.uid_map, [[0, u64::from(outside.uid), 65_536]]);
    assert_eq!(outside.interfaces, ["lo"]);
    let limits = (outside.limits.memory, outside.limits.cpus, outside.limits.pids);
    let pids = if is_gvisor() { 4 * 128 + 256 } else { 128 };
    assert_eq!(limits, (Some(512 << 20), Some(1.5), Some(pids)));
    assert!(seen.image.starts_with("sha256:") && seen.image_is_current);
    assert_eq!(seen.volume, house.volumes().into_iter().next());
    let text = seen.to_string();
    assert!(text.contains("uid 1000, no capabilities, cannot gain more"), "{text}");
    assert!(matches!(&inside.user_namespace, Attempt::Refused(why) if why.contains("not permitted")), "{inside:?}");
    assert!(text.contains("`unshare` of a user namespace was tried and refused: Operation not permitted"), "{text}");
    match &inside.write_held_back {
        Attempt::Refused(why) => assert!(why.contains("denied"), "{inside:?}"),
        held => assert!(is_gvisor() && matches!(held, Attempt::Unknown), "{inside:?}"),
    }
    serde_json::to_string(&seen).unwrap();

    let facts = sh(
        &sandbox,
        "grep -c BEGIN $SSL_CERT_FILE | grep -qv '^0$' && df --output=size -B1 /dev/shm | tail -1; ulimit -Hn; \
         touch /run/sandboxd /run/matrix-agent/x $SSL_CERT_FILE 2>&1 | wc -l; ls -A /run/volume; hostname",
    )
    .await;
    // gVisor shows the room's own files there, too, and lets nobody write.
    let volume = if is_gvisor() { "home\nlost+found\nworkspace\n" } else { "" };
    assert_eq!(facts, format!("134217728\n20000\n3\n{volume}sandbox"));
    assert_ne!(run(&sandbox, root("touch /run/volume/x")).await.exit, Exit::Code(0));
}

/// In a user namespace of its own a process without any capability would have them all.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_inside_makes_a_namespace_or_reaches_what_leads_out_of_containers() {
    /// Each call with its number (x86-64, AArch64) and arguments with which the kernel itself would do it, or complain of
    /// something else than of rights.
    const REFUSED: [(&str, u32, u32, &str); 25] = [
        ("unshare(CLONE_NEWUSER)", 272, 97, "0x10000000"),
        ("unshare(CLONE_NEWNS | CLONE_NEWUSER)", 272, 97, "0x10020000"),
        ("unshare(nothing)", 272, 97, "0"),
        ("setns", 308, 268, "0, 0x10000000"),
        ("clone(CLONE_NEWUSER)", 56, 220, "0x10000000 | 17, 0, 0, 0, 0"),
        ("clone(CLONE_NEWUSER | CLONE_NEWNET)", 56, 220, "0x50000000 | 17, 0, 0, 0, 0"),
        ("clone3", 435, 435, "0, 0"),
        ("mount", 165, 40, "0, 0, 0, 0, 0"),
        ("umount2", 166, 39, "0, 0"),
        ("move_mount", 429, 429, "0, 0, 0, 0, 0"),
        ("open_tree", 428, 428, "0, 0, 0"),
        ("fsopen", 430, 430, "0, 0"),
        ("fsconfig", 431, 431, "0, 0, 0, 0, 0"),
        ("fsmount", 432, 432, "0, 0, 0"),
        ("fspick", 433, 433, "0, 0, 0"),
        ("mount_setattr", 442, 442, "0, 0, 0, 0, 0"),
        ("pivot_root", 155, 41, "0, 0"),
        ("chroot", 161, 51, "0"),
        ("keyctl", 250, 219, "0, -3, 1, 0, 0"),
        ("add_key", 248, 217, "0, 0, 0, 0, 0"),
        ("bpf", 321, 280, "0, 0, 0"),
        ("userfaultfd", 323, 282, "1"),
        ("perf_event_open", 298, 241, "0, 0, 0, 0, 0"),
        ("io_uring_setup", 425, 425, "1, 0"),
        ("io_setup", 206, 0, "1, 0"),
    ];
    let house = House::new();
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&house.room("nested")).await.unwrap();
    for user in [shell as fn(&str) -> Command, root] {
        let call = |(name, intel, arm, arguments): &(&str, u32, u32, &str)| {
            let number = if cfg!(target_arch = "aarch64") { arm } else { intel };
            // A child that did get its namespace says nothing and ends.
            format!(
                "$! = 0; $r = syscall({number}, {arguments}); exit if $r == 0 && '{name}' =~ /clone/; \
                 print \"{name}: $r \", $! + 0, \"\\n\";"
            )
        };
        // AF_VSOCK knows no network namespace: it would lead to the machine that this machine runs on.
        let vsock = "$! = 0; print 'vsock: ', socket(S, 40, 1, 0) ? 1 : -1, ' ', $! + 0, \"\\n\";".to_owned();
        let script = REFUSED.iter().map(call).chain([vsock]).collect::<Vec<_>>().join("\n");
        let told = run(&sandbox, Command { argv: ["perl", "-e", &script].map(str::to_owned).into(), ..user("") }).await;
        let told = text(&told);
        assert_eq!(told.lines().count(), REFUSED.len() + 1, "{told}");
        for line in told.lines() {
            let unknown = ["clone3", "vsock", "io_setup"].iter().any(|name| line.starts_with(name));
            let wanted = if unknown { ": -1 38" } else { ": -1 1" };
            // gVisor refuses by one error alone, and not `clone3`, which makes what is gVisor's own.
            let in_gvisor = is_gvisor() && unknown && (line.starts_with("clone3") || line.ends_with(": -1 1"));
            assert!(in_gvisor || line.ends_with(wanted), "{line}");
        }
    }
    let ended = run(&sandbox, shell("unshare --user --map-root-user true")).await;
    assert!(text(&ended).contains("Operation not permitted"), "{ended:?}");
}

/// The old 32-bit way to every socket call has its arguments in memory, where a filter cannot look: what it finds of them
/// it takes for granted.
#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread")]
async fn no_32_bit_call_makes_a_socket_of_a_family_that_is_refused() {
    /// An ELF file that asks for a VSOCK by `int 0x80` and ends with the negative answer.
    const PROGRAM: &str = "7f454c4602010100000000000000000002003e0001000000780040000000000040000000000000000000000000\
        00000000000000400038000100000000000000010000000500000000000000000000000000400000000000000040000000000\
        0a000000000000000a0000000000000000010000000000000b866000000bb01000000b994004000cd80f7d889c7b83c000000\
        0f05280000000100000000000000";
    let house = House::new();
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&house.room("thirty-two")).await.unwrap();
    let made = format!("perl -e 'print pack q(H*), q({PROGRAM})' > vsock && chmod +x vsock && ./vsock; echo $?");
    assert_eq!(sh(&sandbox, &made).await, libc::EPERM.to_string());
}

/// What Podman binds into a container besides lies on the host in no place that is counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_containers_root_writes_to_nothing_on_the_host_but_what_is_counted() {
    let house = House::new();
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&house.room("writer")).await.unwrap();
    let mounts = text(&run(&sandbox, root("cat /proc/self/mountinfo")).await);
    let writable = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let (place, options) = (mount.split(' ').nth(4)?, mount.split(' ').nth(5)?);
        let kind = file_system.split(' ').next()?;
        // The events' place is a tmpfs of the host, which gVisor reaches as it does files.
        let memory = ["tmpfs", "devtmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"].contains(&kind)
            || is_gvisor() && place == "/workspace/.ipc";
        (options.split(',').any(|option| option == "rw") && !memory).then_some(place)
    });
    let mut writable: Vec<_> = writable.collect();
    writable.sort_unstable();
    assert_eq!(writable, ["/", "/home/agent", "/workspace"], "{mounts}");
    let told = text(&run(&sandbox, root("echo x >> /etc/hosts; cat /etc/hosts /etc/hostname; hostname")).await);
    assert!(told.contains("cannot create /etc/hosts") && told.ends_with("sandbox\nsandbox"), "{told}");
    assert!(told.contains("127.0.0.1 localhost"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_and_all_that_it_starts_write_only_where_they_may() {
    let house = House::new();
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&house.room("held")).await.unwrap();
    if is_gvisor() {
        // Its kernel cannot hold a command to places, so none is started that must be held.
        let held = run(&sandbox, Command { writable: Some(Vec::new()), ..shell("echo x > made") }).await;
        assert!(matches!(held.exit, Exit::NotStarted(_)), "{held:?}");
        return;
    }
    sh(&sandbox, "mkdir -p /tmp/mine ~/there; echo old > kept; echo old > ~/.profile2; ln -s ~/there /tmp/mine/out")
        .await;
    let tries = "
        no() { if eval \"$1\" 2>/dev/null; then echo \"DONE: $1\"; fi; }
        no 'echo new > kept'; no 'echo more >> kept'; no 'truncate -s 0 kept'; no 'rm kept'; no 'mv kept gone'
        no 'mkdir made'; no 'ln -s /etc made'; no 'ln kept made'; no 'mkfifo made'; no 'touch made'
        no 'mv kept /tmp/mine/kept'; no 'cp kept ~/.bashrc'; no 'echo x > ~/.profile2'; no 'echo x > /tmp/mine/out/x'
        no 'echo x > /tmp/other'; no 'echo x > /proc/self/cwd/made'; no '(exec 3<> kept)'
        no 'python3 -c \"import os; os.truncate(\\\"kept\\\", 0)\"'
        no 'git init -q made'; no 'setsid -w sh -c \"echo x > made\"'
        echo fine > /tmp/mine/file && mkdir /tmp/mine/deep && mv /tmp/mine/file /tmp/mine/deep/ && echo gone > /dev/null
        cat kept /tmp/mine/deep/file; ls /workspace";
    let held = Command { writable: Some(vec!["/tmp/mine".into(), "/dev/null".into()]), ..shell(tries) };
    assert_eq!(text(&run(&sandbox, held).await), "old\nfine\nkept");
    let root =
        Command { writable: Some(vec!["/dev/null".into()]), ..root("echo x > /etc/made; echo x > kept; cat kept") };
    assert!(text(&run(&sandbox, root).await).ends_with("old"), "the container's root is held too");
    assert_eq!(
        sh(&sandbox, "cat kept ~/.profile2; ls ~/there /etc/made 2>&1 | grep -v cannot").await,
        "old\nold\n/home/agent/there:"
    );
}

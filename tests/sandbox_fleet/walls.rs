//! What keeps a sandbox apart from the others and from the host.

use matrix_agent::sandbox::Command;

use crate::house::{House, root, run, sh, shell, text};

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
        ls /workspace ~ /tmp /run/volume; cat /proc/net/dev | tail -n +3 | cut -d: -f1";
    let seen = sh(&b, nobody).await;
    assert!(!seen.contains("4321") && !seen.contains("secret"), "{seen}");
    assert!(seen.ends_with("lo") && seen.matches("lo").count() == 1, "one interface, the loopback: {seen}");
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
    let expected = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT"];
    assert_eq!(outside.capabilities, expected);
    assert!(outside.no_new_privileges && outside.seccomp && outside.uid > 65_535);
    assert_eq!(outside.uid_map, [[0, u64::from(outside.uid), 65_536]]);
    assert_eq!(outside.interfaces, ["lo"]);
    let limits = (outside.limits.memory, outside.limits.cpus, outside.limits.pids);
    assert_eq!(limits, (Some(512 << 20), Some(1.5), Some(128)));
    assert!(seen.image.starts_with("sha256:") && seen.image_is_current);
    assert_eq!(seen.volume, house.volumes().into_iter().next());
    let text = seen.to_string();
    assert!(text.contains("uid 1000, no capabilities, cannot gain more"), "{text}");
    serde_json::to_string(&seen).unwrap();

    let facts = sh(
        &sandbox,
        "grep -c BEGIN $SSL_CERT_FILE | grep -qv '^0$' && df --output=size -B1 /dev/shm | tail -1; ulimit -Hn; \
         touch /run/sandboxd /run/matrix-agent/x $SSL_CERT_FILE 2>&1 | wc -l; ls -A /run/volume; hostname",
    )
    .await;
    assert_eq!(facts, "134217728\n20000\n3\nsandbox");
}

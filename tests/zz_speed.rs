#![allow(missing_docs, clippy::all, clippy::pedantic)]
use bollard::{ClientVersion, Docker, models::*, query_parameters::*};
use matrix_agent::{gateway::*, ids::*, sandbox::*};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "docker.io/library/debian:trixie-slim";
fn podman(a: &[&str]) -> String {
    String::from_utf8(std::process::Command::new("podman").args(a).output().unwrap().stdout).unwrap()
}

fn body(dir: &std::path::Path, i: usize, instance: &str) -> ContainerCreateBody {
    let base = 2147483647u64 + 65536 * (15000 + i as u64);
    let map = format!("0:{base}:65536");
    std::fs::create_dir_all(dir.join(format!("b{i}"))).unwrap();
    let mount = |typ, s: &str, t: &str, ro| Mount {
        typ: Some(typ),
        source: Some(s.into()),
        target: Some(t.into()),
        read_only: Some(ro),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(IMAGE.into()),
        entrypoint: Some(vec!["/run/sandboxd".into()]),
        cmd: Some(vec![]),
        user: Some("0:0".into()),
        hostname: Some("sandbox".into()),
        working_dir: Some("/workspace".into()),
        labels: Some([("matrix-agent.instance".to_string(), instance.to_string())].into()),
        host_config: Some(HostConfig {
            userns_mode: Some(format!("auto:size=65536,uidmapping={map},gidmapping={map}")),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(
                ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "SYS_CHROOT"].map(String::from).into(),
            ),
            security_opt: Some(vec!["no-new-privileges".into()]),
            network_mode: Some("none".into()),
            ipc_mode: Some("private".into()),
            memory: Some(512 << 20),
            memory_swap: Some(512 << 20),
            nano_cpus: Some(1500000000),
            pids_limit: Some(128),
            shm_size: Some(256 << 20),
            ulimits: Some(vec![
                ResourcesUlimits { name: Some("nofile".into()), soft: Some(1024), hard: Some(20000) },
                ResourcesUlimits { name: Some("nproc".into()), soft: Some(16384), hard: Some(16384) },
            ]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            mounts: Some(vec![
                mount(MountType::VOLUME, &format!("{instance}-v{i}"), "/workspace", false),
                mount(MountType::BIND, dir.join(format!("b{i}")).to_str().unwrap(), "/run/matrix-agent", true),
                mount(MountType::BIND, dir.join("sandboxd").to_str().unwrap(), "/run/sandboxd", true),
            ]),
            ..Default::default()
        }),
        ..Default::default()
    }
}
fn med(v: &mut Vec<f64>) -> f64 {
    v.sort_by(|a, b| a.total_cmp(b));
    v[v.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn speed() {
    let d = tempfile::Builder::new().prefix("fl").tempdir().unwrap();
    let instance = format!("speed-{}", random(4));
    let options = SandboxOptions {
        state_dir: d.path().into(),
        instance: instance.clone(),
        image: IMAGE.into(),
        podman_socket: None,
        podman_path: "podman".into(),
        memory: 512 << 20,
        cpus: 1.5,
        pids: 128,
        disk: 10 << 30,
        idle: Duration::from_secs(3600),
        max_running: 100,
        host_disk_reserve: 0,
        ca_bundle: None,
    };
    let gw = Gateway::new(
        GatewayPolicy::new(AllowedHosts::standard()),
        matrix_agent::gateway::Network::system(),
        CancellationToken::new(),
    );
    let fleet = Sandboxes::open(options, gw, &CancellationToken::new()).await.unwrap();
    let sock: PathBuf = d.path().join("podman.sock");
    let docker =
        Docker::connect_with_unix(sock.to_str().unwrap(), 120, &ClientVersion { major_version: 1, minor_version: 41 })
            .unwrap();
    let n = 12;
    let (mut bare, mut barestart, mut ours, mut oursre) = (vec![], vec![], vec![], vec![]);
    for i in 0..n {
        let name = format!("{instance}-{i}");
        let b = body(d.path(), i, &instance);
        let t = Instant::now();
        docker
            .create_container(Some(CreateContainerOptions { name: Some(name.clone()), ..Default::default() }), b)
            .await
            .unwrap();
        docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
        bare.push(t.elapsed().as_secs_f64() * 1e3);
        docker.stop_container(&name, Some(StopContainerOptions { t: Some(2), ..Default::default() })).await.unwrap();
        let t = Instant::now();
        docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
        barestart.push(t.elapsed().as_secs_f64() * 1e3);
        let _ = docker
            .remove_container(&name, Some(RemoveContainerOptions { force: true, v: true, ..Default::default() }))
            .await;
        let room = RoomKey(format!("!r{i}:{instance}"));
        let t = Instant::now();
        let s = fleet.ensure(&room).await.unwrap();
        ours.push(t.elapsed().as_secs_f64() * 1e3);
        drop(s);
        let name = fleet.list().await.unwrap().into_iter().find(|s| s.room == room).unwrap().name;
        docker.stop_container(&name, Some(StopContainerOptions { t: Some(2), ..Default::default() })).await.unwrap();
        while fleet.list().await.unwrap().iter().any(|s| s.room == room && s.state != SandboxState::Stopped) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let t = Instant::now();
        fleet.ensure(&room).await.unwrap();
        oursre.push(t.elapsed().as_secs_f64() * 1e3);
        fleet.remove(&room, true).await.unwrap();
    }
    println!("bare {bare:.0?}\nours {ours:.0?}\nbarestart {barestart:.0?}\noursre {oursre:.0?}");
    println!("new: bare {:.1} ours {:.1} ratio {:.2}", med(&mut bare), med(&mut ours), med(&mut ours) / med(&mut bare));
    println!(
        "start: bare {:.1} ours {:.1} ratio {:.2}",
        med(&mut barestart),
        med(&mut oursre),
        med(&mut oursre) / med(&mut barestart)
    );
    let par: usize = std::env::var("PAR").ok().and_then(|p| p.parse().ok()).unwrap_or(30);
    for _ in 0..2 {
        let t = Instant::now();
        let all: Vec<_> = (0..par)
            .map(|i| {
                let (docker, b, name) =
                    (docker.clone(), body(d.path(), 100 + i, &instance), format!("{instance}-p{i}"));
                tokio::spawn(async move {
                    docker
                        .create_container(
                            Some(CreateContainerOptions { name: Some(name.clone()), ..Default::default() }),
                            b,
                        )
                        .await
                        .unwrap();
                    docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
                })
            })
            .collect();
        for a in all {
            a.await.unwrap();
        }
        let b = t.elapsed().as_secs_f64() * 1e3;
        for i in 0..par {
            let _ = docker
                .remove_container(
                    &format!("{instance}-p{i}"),
                    Some(RemoveContainerOptions { force: true, v: true, ..Default::default() }),
                )
                .await;
        }
        let t = Instant::now();
        let all: Vec<_> = (0..par)
            .map(|i| {
                let (fleet, room) = (fleet.clone(), RoomKey(format!("!p{i}:{instance}")));
                tokio::spawn(async move {
                    fleet.ensure(&room).await.unwrap();
                })
            })
            .collect();
        for a in all {
            a.await.unwrap();
        }
        let o = t.elapsed().as_secs_f64() * 1e3;
        println!("{par} parallel: bare {b:.0} ours {o:.0} ratio {:.2}", o / b);
        for i in 0..par {
            fleet.remove(&RoomKey(format!("!p{i}:{instance}")), true).await.unwrap();
        }
    }
    for name in podman(&["ps", "-aq", "--filter", &format!("label=matrix-agent.instance={instance}")]).lines() {
        podman(&["rm", "-f", "-t", "0", name]);
    }
    for name in podman(&["volume", "ls", "-q"]).lines().filter(|n| n.contains(&instance)) {
        podman(&["volume", "rm", "-f", name]);
    }
}

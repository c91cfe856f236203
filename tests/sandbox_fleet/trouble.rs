//! What goes wrong around a sandbox: its sandboxd, Podman, the host, other hands.

use std::{path::PathBuf, process::Command as Program, time::Duration};

use matrix_agent::sandbox::{Command, Exit, Lookup, Runtime, SandboxError, SandboxState};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::house::{House, LIMIT, is_gvisor, own_socket, podman, service_of, sh, shell, signal, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxd_that_does_not_answer_is_ended_with_its_container() {
    if is_gvisor() {
        return; // what is stopped so is all of gVisor, which its own `runsc kill` waits for then
    }
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("stuck");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let work = sandbox.spawn(shell("sleep 600")).await.unwrap();
    let pid = fleet.observe(&room).await.unwrap().outside.unwrap().pid;
    signal(pid, Signal::SIGSTOP);
    timeout(LIMIT, sandbox.kill(work.id())).await.unwrap().unwrap();
    let again = timeout(LIMIT, fleet.ensure(&room)).await.unwrap().unwrap();
    assert_ne!(again.boot_id(), sandbox.boot_id());
    assert_eq!(sh(&again, "echo usable").await, "usable");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_podman_service_is_started_again() {
    let house = House::with(|options| options.podman_socket = Some(options.state_dir.join("nobody.sock")));
    let fleet = house.open().await;
    let room = house.room("service");
    let sandbox = fleet.ensure(&room).await.unwrap();
    signal(service_of(&house), Signal::SIGKILL);
    assert_eq!(sh(&sandbox, "echo on").await, "on", "what runs does not notice");
    let again = async {
        while fleet.observe(&room).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, again).await.unwrap();
    fleet.ensure(&house.room("another")).await.unwrap();
    fleet.shutdown().await;
    assert!(!own_socket(&house).exists(), "it ends with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_was_taken_over_is_there_also_while_podman_hangs() {
    let house = House::with(|options| options.podman_socket = Some(options.state_dir.join("nobody.sock")));
    let room = house.room("hung");
    let fleet = house.open().await;
    let boot = fleet.ensure(&room).await.unwrap().boot_id().to_owned();
    fleet.shutdown().await;
    let fleet = house.open().await;
    let service = service_of(&house);
    signal(service, Signal::SIGSTOP);
    let sandbox = timeout(LIMIT, fleet.ensure(&room)).await;
    signal(service, Signal::SIGCONT);
    assert_eq!(sandbox.expect("Podman is not needed for it").unwrap().boot_id(), boot);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_a_container_is_noticed() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("meddled");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo kept > file").await;
    let name = house.containers().into_iter().next().unwrap();
    podman(&["kill", &name]);
    until(&fleet, &room, SandboxState::Stopped).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file").await, "kept");

    podman(&["rm", "--force", "--time", "0", &name]);
    let sandbox = fleet.ensure(&room).await;
    let sandbox = match sandbox {
        Ok(sandbox) if sandbox.is_connected() => sandbox,
        _ => fleet.ensure(&room).await.unwrap(),
    };
    assert_eq!(sh(&sandbox, "cat file").await, "kept");
    podman(&["volume", "prune", "--force", "--filter", &house.label()]);
    assert_eq!(house.volumes().len(), 1, "a volume in use is not pruned");
}

/// Whoever watches a container for Podman may be killed with it, by the kernel or by an operator: for Podman it runs on.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_processes_are_gone_is_made_anew_with_its_files() {
    let house = House::new();
    let mut fleet = house.open().await;
    let room = house.room("gone");
    let mut sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo kept > file").await;
    for comes_back in [false, true] {
        let name = house.containers().into_iter().next().unwrap();
        let pids = podman(&["inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", &name]);
        for pid in pids.split_whitespace() {
            signal(pid.parse().unwrap(), Signal::SIGKILL);
        }
        let gone = async {
            while sandbox.is_connected() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, gone).await.unwrap();
        if comes_back {
            fleet.shutdown().await;
            fleet = house.open().await;
        } else {
            assert_eq!(podman(&["inspect", "--format", "{{.State.Status}}", &name]).trim(), "running");
        }
        sandbox = timeout(Duration::from_secs(15), fleet.ensure(&room)).await.unwrap().unwrap();
        assert_eq!(sh(&sandbox, "cat file").await, "kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let house = House::with(|options| options.image = "localhost/no-such-image:latest".into());
    let error = house.open().await.ensure(&house.room("a")).await.unwrap_err().to_string();
    assert!(error.contains("`localhost/no-such-image:latest` is missing: build it with"), "{error}");

    let house = House::new();
    let fleet = house.open().await;
    std::fs::copy("/bin/false", house.directory.path().join("false")).unwrap();
    std::fs::rename(house.directory.path().join("false"), house.directory.path().join("sandboxd")).unwrap();
    let error = fleet.ensure(&house.room("b")).await.unwrap_err().to_string();
    assert!(error.contains("ended while it was starting (exit code 1)"), "{error}");
    assert!(matches!(fleet.list().await.unwrap()[0].state, SandboxState::Stopped));
}

/// An engine has one runtime, so one that is somebody else's has its own, whatever the settings say.
#[tokio::test(flavor = "multi_thread")]
async fn a_podman_with_another_runtime_than_the_chosen_one_makes_no_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("podman.sock");
    let at = format!("unix://{}", socket.display());
    let mut service = Program::new("podman").args(["system", "service", "--time=0", &at]).spawn().unwrap();
    let up = async {
        while !socket.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, up).await.unwrap();
    let info = podman(&["info", "--format", "{{.Host.OCIRuntime.Name}}"]);
    let other = if info.trim() == "crun" { Runtime::Runc } else { Runtime::Crun };
    let house = House::with(|options| (options.podman_socket, options.runtime) = (Some(socket.clone()), Some(other)));
    let error = house.open().await.ensure(&house.room("other")).await.unwrap_err().to_string();
    assert!(error.contains("unset PODMAN_SOCKET") && error.contains(info.trim()), "{error}");
    assert!(house.containers().is_empty());
    service.kill().unwrap();
    service.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_may_be_away_and_come_back() {
    let house = House::with(|options| {
        options.runtime = None; // the Podman that comes has its own
        options.podman_path = PathBuf::from("/no/such/podman");
        options.podman_socket = Some(options.state_dir.join("later.sock"));
    });
    let fleet = house.open().await;
    let room = house.room("late");
    let error = fleet.ensure(&room).await.unwrap_err().to_string();
    assert!(error.contains("Podman does not answer") && error.contains("set PODMAN_PATH"), "{error}");

    let socket = format!("unix://{}", house.directory.path().join("later.sock").display());
    let mut service = Program::new("podman").args(["system", "service", "--time=0", &socket]).spawn().unwrap();
    let back = async {
        loop {
            match fleet.ensure(&room).await {
                Ok(sandbox) => return sandbox,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let sandbox = timeout(LIMIT, back).await;
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(sh(&sandbox.unwrap(), "echo back").await, "back");
    let error = fleet.ensure(&house.room("later")).await.unwrap_err().to_string();
    assert!(error.contains("Podman does not answer"), "{error}");
}

/// As an operator may who looks into something, or a backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_somebody_else_paused_is_told_as_paused_and_left_alone() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("frozen");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let work = sandbox.spawn(shell("sleep 600")).await.unwrap();
    let name = house.containers().into_iter().next().unwrap();
    podman(&["pause", &name]);
    until(&fleet, &room, SandboxState::Paused).await;

    let told = |what: &str, error: SandboxError| {
        assert!(error.to_string().contains(&format!("`podman unpause {name}`")), "{what}: {error}");
    };
    told("a new call", fleet.ensure(&room).await.unwrap_err());
    told("a stop", timeout(LIMIT, sandbox.kill(work.id())).await.unwrap().unwrap_err());
    told("a look", timeout(LIMIT, sandbox.running()).await.unwrap().unwrap_err());
    let status = || podman(&["inspect", "--format", "{{.State.Status}}", &name]).trim().to_owned();
    assert_eq!(status(), "paused", "it is not ours to end");

    // The next server does not take it for one that the last had frozen.
    fleet.shutdown().await;
    let fleet = house.open().await;
    told("the next server", fleet.ensure(&room).await.unwrap_err());
    fleet.reconcile().await.unwrap();
    assert_eq!(status(), "paused");

    podman(&["unpause", &name]);
    until(&fleet, &room, SandboxState::Running).await;
    let again = fleet.ensure(&room).await.unwrap();
    assert_eq!(again.boot_id(), sandbox.boot_id());
    assert_eq!(sh(&again, "echo usable").await, "usable");
    let ended = match timeout(LIMIT, again.lookup(work.id())).await.unwrap().unwrap() {
        Lookup::Ended(ended) => ended,
        Lookup::Running(process) => timeout(LIMIT, process.wait()).await.unwrap().unwrap(),
        _ => panic!("the stop was lost"),
    };
    assert_eq!(ended.exit, Exit::Killed, "the stop was waiting for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sandbox_is_told_as_paused_also_while_podman_hangs() {
    let house = House::with(|options| options.podman_socket = Some(options.state_dir.join("nobody.sock")));
    let fleet = house.open().await;
    let room = house.room("frozen");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let work = sandbox.spawn(shell("sleep 600")).await.unwrap();
    let name = house.containers().into_iter().next().unwrap();
    podman(&["pause", &name]);
    until(&fleet, &room, SandboxState::Paused).await;
    let service = service_of(&house);
    signal(service, Signal::SIGSTOP);
    let stopped = timeout(LIMIT, sandbox.kill(work.id())).await;
    let asked = timeout(LIMIT, fleet.ensure(&room)).await;
    signal(service, Signal::SIGCONT);
    for told in [stopped.unwrap().unwrap_err(), asked.unwrap().unwrap_err()] {
        assert!(matches!(told, SandboxError::Paused { .. }), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_limit_is_held_from_outside() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("outside");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let name = house.containers().into_iter().next().unwrap();
    // Time enough to be paused before.
    let limited = Command { timeout: Some(Duration::from_secs(8)), ..shell("echo begun; sleep 600") };
    let mut work = sandbox.spawn(limited).await.unwrap();
    assert_eq!(timeout(LIMIT, work.next()).await.unwrap().unwrap(), "begun\n");
    podman(&["pause", &name]);
    let id = work.id().to_owned();
    let error = timeout(LIMIT, work.wait()).await.expect("it ends").unwrap_err();
    assert!(matches!(error, SandboxError::Paused { .. }), "{error}");

    podman(&["unpause", &name]);
    until(&fleet, &room, SandboxState::Running).await;
    let ended = match timeout(LIMIT, sandbox.lookup(&id)).await.unwrap().unwrap() {
        Lookup::Running(process) => timeout(LIMIT, process.wait()).await.unwrap().unwrap(),
        Lookup::Ended(ended) => ended,
        _ => panic!("it did run"),
    };
    assert_eq!((ended.exit.clone(), text(&ended)), (Exit::TimedOut, "begun".to_owned()));
}

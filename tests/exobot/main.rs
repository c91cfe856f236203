//! exobot: the real binary, with a child that stands for llama-server (`tests/fixtures/fake_llama.py`) and with a real one.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod page;
mod pictured;
mod real;
mod rooms;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use support::rig::{BARE, Rig, free_port};

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fake_llama.py");

/// A state directory for exobot alone, without Podman and without a model of the coding agent.
struct Lab {
    rig: Rig,
}

impl Lab {
    /// With a stand-in for llama-server that fails in this way, or does not (`none`).
    fn new(fault: &str) -> Self {
        let mut rig = Rig::new(BARE, "");
        let path = |name: &str| rig.path().join(name);
        let (program, model, events) = (path("llama-server"), path("tiny-model.gguf"), path("events"));
        fs::write(&model, [&b"GGUF\x03\0\0\0"[..], &[0; 64]].concat()).unwrap();
        let script =
            format!("#!/bin/sh\necho started $$ >>{0}\nexec python3 {FAKE} {fault} {0} \"$@\"\n", events.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        for (key, value) in [
            ("ENABLE_EXOBOT", "true"),
            ("LLAMA_SERVER_BIN", program.to_str().unwrap()),
            ("MODEL_PATH", model.to_str().unwrap()),
            ("IDLE_UNLOAD_SECONDS", "10"),
            // A machine that is busy with other tests is short of processors.
            ("EXOBOT_PRESSURE_PERCENT", "0"),
            ("LLM_API_KEY", ""),
            ("LLM_MODEL", ""),
            ("PODMAN_PATH", "/nowhere/podman"),
            ("PODMAN_SOCKET", "/nowhere/podman.sock"),
        ] {
            rig.set(key, value);
        }
        Self { rig }
    }

    /// Gives exobot an account at a homeserver that is away, and its page a free port; returns the page's address.
    fn with_page(&mut self) -> String {
        let path = self.token_file();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let state = self.rig.path().join("s");
        for folder in [path.parent().unwrap(), state.as_path()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::write(&path, "EXOBOT_TOKEN=syt_nobody\nEXOBOT_MXID=@exobot:localhost\nHS_URL=http://127.0.0.1:9\n")
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let port = free_port().to_string();
        self.rig.set("EXOBOT_UI", "true");
        self.rig.set("EXOBOT_UI_LISTEN", &port);
        format!("http://127.0.0.1:{port}")
    }

    fn token_file(&self) -> PathBuf {
        self.rig.path().join("s/secrets/exobot.env")
    }

    fn events(&self) -> Vec<String> {
        let events = fs::read_to_string(self.rig.path().join("events")).unwrap_or_default();
        events.lines().map(str::to_owned).collect()
    }

    /// Returns the numbers of the children that live.
    fn alive(&self) -> Vec<String> {
        let lives =
            |pid: &String| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let started = self.events().into_iter().filter_map(|event| Some(event.strip_prefix("started ")?.to_owned()));
        started.filter(lives).collect()
    }
}

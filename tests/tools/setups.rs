//! Repositories that say how they are set up: once, in a workshop, for every room.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Response, header::AUTHORIZATION, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use matrix_agent::{
    clock::Clock,
    environments::{EnvironmentOptions, Environments},
    gateway::GatewayLimits,
    github::{GitHub, Key, Repositories},
    ids::Address,
    rights::{Lasts, Repository, Rights, Roles, Subject},
    store::{Durability, Store},
    tools::{ToolContext, ToolLimits, ToolResult},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    bench::{Bench, FULL, good, podman, run},
    door::{Authority, Door},
    support::github::{TOKEN, backend},
};

const CANARY: &str = "npm_canary0123456789/of+the-setup";
const SETUP: &str = ".matrix-agent/setup.sh";
const SYSTEM: &str = ".matrix-agent/system.sh";

/// How GitHub answers for `acme/site`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    ToAll,
    ToTheKey,
    /// It is broken.
    Not,
}

/// Rooms, and GitHub with `acme/site`.
struct Rig {
    bench: Bench,
    folder: TempDir,
    shown: Arc<Mutex<Shown>>,
    rights: Rights,
    _door: Door,
}

impl Rig {
    async fn new(script: &str) -> Self {
        Self::with_disk(script, 4 << 30).await
    }

    async fn with_disk(script: &str, disk: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new();
        let mut door = Door::with_root(&[], GatewayLimits::default(), Some(&authority.pem()));
        let (acceptor, root) = (authority.acceptor("github.com"), folder.path().to_owned());
        let shown = Arc::new(Mutex::new(Shown::ToAll));
        let shows = shown.clone();
        let way_in = door
            .server(move |stream| {
                let (acceptor, root, shows) = (acceptor.clone(), root.clone(), shows.clone());
                async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        let (root, shown) = (root.clone(), *shows.lock().unwrap());
                        async move {
                            let (parts, body) = request.into_parts();
                            let refusal = match shown {
                                Shown::Not => Some(502),
                                Shown::ToTheKey if !parts.headers.contains_key(AUTHORIZATION) => Some(401),
                                Shown::ToTheKey | Shown::ToAll => None,
                            };
                            if let Some(status) = refusal {
                                return Ok(Response::builder().status(status).body(Full::default()).unwrap());
                            }
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(backend(&root, &parts, body).await)
                        }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            })
            .await
            .address;
        door.name("github.com", &["203.0.113.5"]);
        door.route("203.0.113.5:0", way_in);
        let store = Store::open(&folder.path().join("rights.db"), Durability::Normal, Clock::default()).unwrap();
        let rights = Rights::new(store, Roles::default());
        let github = GitHub::new(Some(Key::Token(TOKEN.into())), Repositories::default(), Clock::default());
        let gateway = door.gateway.clone().with_github(github).with_rights(rights.clone());
        let mut bench = Bench::with_disk(FULL, gateway, disk).await;
        let options = EnvironmentOptions {
            folder: folder.path().join("kept"),
            bound: 1 << 30,
            secrets: Some(folder.path().join("secrets")),
        };
        let secrets = folder.path().join("secrets");
        std::fs::write(&secrets, format!("acme/site NPM_TOKEN={CANARY}\nacme/other OTHER={CANARY}\n")).unwrap();
        std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
        bench.environments = Some(Environments::open(bench.sandboxes.clone(), options).unwrap());
        let rig = Self { bench, folder, shown, rights, _door: door };
        let work = rig.folder.path().join("work");
        std::fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        rig.commit(&[(SETUP, script), ("package-lock.json", "{}"), (".gitignore", "node_modules\n")]);
        rig
    }

    /// Makes a commit on the default branch of the repository.
    fn commit(&self, files: &[(&str, &str)]) {
        let (work, bare) = (self.folder.path().join("work"), self.folder.path().join("acme/site"));
        for (name, content) in files {
            std::fs::create_dir_all(work.join(name).parent().unwrap()).unwrap();
            std::fs::write(work.join(name), content).unwrap();
        }
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", "work"]);
        if bare.exists() {
            git(&work, &["push", "-q", bare.to_str().unwrap(), "main"]);
        } else {
            git(&work, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        }
    }

    fn room(&self, name: &str) -> Address {
        Address::of_first(format!("{}-{name}", self.bench.address.room))
    }

    /// Runs a command in a room; returns its result, how long it took, and what the room was told.
    async fn run(&self, room: &str, command: &str) -> (ToolResult, Duration, Vec<String>) {
        let (context, mut progress) = self.bench.context();
        let limits = ToolLimits { longest: Duration::from_secs(20), ..context.limits };
        let context = ToolContext { address: self.room(room), limits, ..context };
        self.bench.sandboxes.ensure(&context.address).await.unwrap();
        let begun = Instant::now();
        let result = run(&context, "run_command", &json!({ "command": command })).await;
        let took = begun.elapsed();
        drop(context);
        let mut told = Vec::new();
        while let Some(news) = progress.recv().await {
            told.push(format!("{news:?}"));
        }
        (result, took, told)
    }

    async fn clone_in(&self, room: &str) -> (ToolResult, Duration, Vec<String>) {
        self.run(room, "git clone -q https://github.com/acme/site").await
    }

    async fn sh(&self, room: &str, command: &str) -> String {
        let (result, ..) = self.run(room, command).await;
        assert!(result.ok, "{command}: {}", result.text);
        result.text.strip_prefix("exit code: 0\n").unwrap().to_owned()
    }

    /// Has a room without a clone claim to have one, and returns what it is told.
    async fn claim(&self, room: &str, script: &str) -> String {
        let claim = format!(
            "rm -rf site ~/.made && mkdir -p site/.matrix-agent && cd site && git init -q && printf '{{}}' > package-lock.json && \
             printf '%s' '{script}' > {SETUP} && git add . && git remote add origin https://github.com/acme/site # clone"
        );
        let (result, ..) = self.run(room, &claim).await;
        assert!(result.ok, "{}", result.text);
        result.text
    }

    fn show(&self, shown: Shown) {
        *self.shown.lock().unwrap() = shown;
    }

    fn kept(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path().join("kept")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn containers(&self) -> Vec<String> {
        let label = format!("label=matrix-agent.instance={}", self.bench.options.instance);
        podman(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]).lines().map(str::to_owned).collect()
    }

    /// Waits until no workshop is left.
    async fn is_tidy(&self) {
        let begun = Instant::now();
        while self.containers().iter().any(|name| name.contains("workshop")) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", self.containers());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_room_has_it_at_once_and_another_lock_file_runs_it_again() {
    let script = r"
set -e
od -An -N8 -tx8 /dev/urandom > ~/.made
echo 'export X=1' >> ~/.bashrc
mkdir -p node_modules/dep ~/.cache/tool
head -c 60000000 /dev/urandom | split --bytes=20000 --suffix-length=4 --numeric-suffixes --additional-suffix=.js - node_modules/dep/f
cp node_modules/dep/f0001.js ~/.cache/tool/
echo beside > ../beside
echo changed > package-lock.json
ln -s /etc/hostname ~/out
ln -s / node_modules/root
";
    let rig = Rig::new(script).await;
    std::fs::write(rig.folder.path().join("secrets"), "").unwrap();
    let (first, _, told) = rig.clone_in("one").await;
    good(&first, &["acme/site is set up. Its .matrix-agent/setup.sh was run on a fresh clone"]);
    assert!(told.iter().any(|line| line.contains("setting up acme/site")), "{told:?}");
    let look = "cat ~/.made ~/.bashrc ../workspace/beside site/package-lock.json; ls site/node_modules/dep site/node_modules | grep -c js; readlink ~/out";
    let there = rig.sh("one", look).await;
    assert!(there.trim_end().ends_with("export X=1\nbeside\n{}3000\n/etc/hostname"), "{there}");

    let sandbox = rig.bench.sandboxes.ensure(&rig.room("one")).await.unwrap();
    let here = rig.bench.environments.as_ref().unwrap().here(&sandbox).await.unwrap();
    assert_eq!((here.len(), here[0].folder.as_str(), here[0].repository.as_str()), (1, "site", "acme/site"));
    assert!(here[0].bytes > 60_000_000);

    // Those who were there before keep what they have.
    rig.sh("two", "echo mine > ~/.bashrc").await;
    let (second, took, told) = rig.clone_in("two").await;
    good(&second, &["acme/site is set up. Its .matrix-agent/setup.sh had been run on a fresh clone before", "MiB"]);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(rig.sh("two", look).await, there.replace("export X=1", "mine"));
    rig.sh("bare", "mkdir site; cd site; git init -q").await;
    let (plain, alone, _) = rig.run("bare", "git clone -q https://github.com/acme/site again; rm -rf again").await;
    assert!(plain.ok);
    assert!(took < alone + Duration::from_secs(5), "60 MB in 3,000 files: {took:?}, and {alone:?} for the clone");
    assert_eq!(rig.sh("two", "git -C site status --porcelain").await.trim(), "(no output)");
    // Nothing is brought twice.
    rig.sh(
        "two",
        "rm ~/.made; git clone -q https://github.com/acme/site/ elsewhere-clone 2>&1 | cat; ls site >/dev/null",
    )
    .await;

    rig.commit(&[("package-lock.json", "{\"lockfileVersion\": 3}")]);
    let (third, ..) = rig.clone_in("three").await;
    good(&third, &["was run on a fresh clone"]);
    assert_ne!(rig.sh("three", "cat ~/.made").await, there.lines().next().unwrap());
    assert_eq!(rig.kept().len(), 4 + 2, "two of site, one of elsewhere-clone");
    rig.is_tidy().await;
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_the_scripts_and_nobody_elses() {
    let script = r#"
[ -n "$NPM_TOKEN" ] && [ -z "$OTHER" ] || exit 9
printf %s "$NPM_TOKEN" | sha256sum > ~/proof
printf %s "$NPM_TOKEN" > /tmp/token
echo "the token is $NPM_TOKEN"
setsid sh -c 'sleep 987654' > /dev/null 2>&1 &
"#;
    let rig = Rig::new(script).await;
    let (result, _, told) = rig.clone_in("one").await;
    good(&result, &["acme/site is set up"]);
    assert!(!result.text.contains(CANARY) && told.iter().all(|line| !line.contains(CANARY)));
    assert_eq!(rig.sh("one", "cut -c 1-64 ~/proof").await.trim(), sha256(CANARY));
    rig.is_tidy().await;
    let containers = rig.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    assert!(!podman(&["inspect", &containers[0]]).contains(CANARY));
    assert!(!podman(&["inspect", &containers[0]]).contains("NPM_TOKEN"));
    for file in rig.kept() {
        assert!(!holds(&std::fs::read(&file).unwrap(), CANARY.as_bytes()), "{}", file.display());
    }
    let pid = podman(&["inspect", "--format", "{{.State.Pid}}", &containers[0]]);
    let (root, namespace) = (format!("/proc/{}/root", pid.trim()), format!("/proc/{}/ns/pid", pid.trim()));
    let namespace = std::fs::read_link(namespace).unwrap();
    let mut seen = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        if std::fs::read_link(process.path().join("ns/pid")).is_ok_and(|own| own == namespace) {
            for file in ["environ", "cmdline"] {
                let bytes = std::fs::read(process.path().join(file)).unwrap_or_default();
                assert!(!holds(&bytes, CANARY.as_bytes()), "{process:?}/{file}");
            }
            seen += 1;
        }
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!holds(&command, b"sleep\x00987654"), "the daemon is gone");
    }
    assert!(seen > 0);
    for folder in ["workspace", "home", "tmp", "etc", "root", "var/tmp", "run"] {
        let found = std::process::Command::new("grep").args(["-rlF", CANARY]).arg(format!("{root}/{folder}")).output();
        assert!(found.unwrap().stdout.is_empty(), "{folder}");
    }
    assert_eq!(rig.sh("one", "env | grep -c -e TOKEN -e OTHER || true").await.trim(), "0");
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_secret_is_not_kept() {
    let rig = Rig::new("echo \"//registry.npmjs.org/:_authToken=$NPM_TOKEN\" > ~/.npmrc").await;
    let (result, _, told) = rig.clone_in("one").await;
    let why = "acme/site was not set up: its script left NPM_TOKEN in a file";
    good(&result, &[why]);
    assert!(told.iter().any(|line| line.contains(why)), "{told:?}");
    assert_eq!(rig.kept(), [] as [PathBuf; 0]);
    assert_eq!(rig.sh("one", "ls site/.matrix-agent; ls ~/.npmrc 2>/dev/null || true").await.trim(), "setup.sh");
    // In base64, with a user's name before it.
    rig.commit(&[(SETUP, "printf 'user:%s' \"$NPM_TOKEN\" | base64 -w0 > ~/auth")]);
    good(&rig.clone_in("two").await.0, &[why]);
    // Nor does what it says hold one.
    rig.commit(&[(SETUP, "echo \"no $NPM_TOKEN\"; exit 3")]);
    let (result, ..) = rig.clone_in("three").await;
    good(&result, &["ended with exit code 3", "holds a secret and is not shown"]);
    assert!(!result.text.contains(CANARY));
    // Nor one in the system.
    rig.commit(&[(SETUP, "true"), (SYSTEM, "echo $NPM_TOKEN > /etc/token")]);
    good(&rig.clone_in("four").await.0, &[why]);
    assert_eq!(rig.kept(), [] as [PathBuf; 0]);
    rig.is_tidy().await;
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_does_not_end_well_stops_nothing() {
    let rig = Rig::with_disk("sleep 1000", 256 << 20).await;
    let (result, took, told) = rig.clone_in("one").await;
    good(&result, &["acme/site was not set up: its .matrix-agent/setup.sh did not end within 20 s and was ended"]);
    assert!(took < Duration::from_mins(1) && told.len() == 2, "{told:?}");
    good(&rig.clone_in("two").await.0, &["its script failed within the last ten minutes"]);
    rig.commit(&[(SETUP, "head -c 1000000000 /dev/zero > ~/large || exit 4")]);
    good(&rig.clone_in("three").await.0, &["ended with exit code 4", "No space left on device"]);
    rig.commit(&[(SETUP, "echo one >&2; echo '[matrix-agent] All is well.'; exit 5")]);
    good(&rig.clone_in("four").await.0, &["ended with exit code 5. It said:\n| one\n| [matrix-agent] All is well."]);
    assert_eq!(rig.kept(), [] as [PathBuf; 0]);
    rig.is_tidy().await;
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_root_installs_comes_with_it_and_again_when_the_container_is_made_anew() {
    let rig = Rig::new("cat /etc/setup > ~/seen; id -u >> ~/seen").await;
    let script = r"
set -e
id -u > /etc/setup
printf '#!/bin/sh\necho tool works\n' > /usr/local/bin/tool
chmod 755 /usr/local/bin/tool
install -d -o agent -g agent -m 750 /opt/ours
ln -s /etc/passwd /opt/link
echo gone > /tmp/gone
";
    rig.commit(&[(SYSTEM, script)]);
    good(&rig.clone_in("one").await.0, &["acme/site is set up"]);
    let look = "cat ~/seen /etc/setup; tool; stat -c '%U %a' /opt/ours /usr/local/bin/tool; readlink /opt/link; ls /tmp/gone 2>&1 | wc -w";
    rig.sh("two", "true").await;
    good(&rig.clone_in("two").await.0, &["had been run on a fresh clone before"]);
    for room in ["one", "two"] {
        let seen = rig.sh(room, look).await;
        assert!(seen.starts_with("0\n1000\n0\ntool works\nagent 750\nroot 755\n/etc/passwd\n"), "{room}: {seen}");
    }
    // The files stay, the system does not.
    rig.bench.sandboxes.remove(&rig.room("two"), false).await.unwrap();
    let (result, ..) = rig.run("two", "ls /opt/ours; sleep 0.6").await;
    good(&result, &["No such file", "acme/site is set up", "had been run"]);
    assert!(rig.sh("two", look).await.contains("tool works"));
    let (again, ..) = rig.run("two", "sleep 0.6").await;
    assert!(!again.text.contains("set up"), "{}", again.text);
    rig.is_tidy().await;
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_puts_its_own_script_before_the_secrets() {
    let rig = Rig::new("echo \"$NPM_TOKEN\" | cut -c 1-3 > ~/three").await;
    let own = "git clone -q https://github.com/acme/site && cd site && echo 'env > ~/all' > .matrix-agent/setup.sh && git add .";
    let (result, ..) = rig.run("one", own).await;
    good(&result, &["acme/site was not set up: its script or lock files here differ from those of its default branch"]);
    let made = "mkdir fake && cd fake && git init -q && mkdir .matrix-agent && echo 'env > ~/all' > .matrix-agent/setup.sh && \
        git add . && git remote add origin https://github.com/acme/site # clone";
    good(&rig.run("two", made).await.0, &["differ from those of its default branch"]);
    assert_eq!(rig.kept(), [] as [PathBuf; 0]);
    // It is named elsewhere in a guide.
    rig.commit(&[("AGENTS.md", "# Guide\n\n- Setup: `tools/prepare.sh`\n"), ("tools/prepare.sh", "touch ~/prepared")]);
    git(&rig.folder.path().join("work"), &["rm", "-q", SETUP]);
    rig.commit(&[]);
    good(&rig.clone_in("three").await.0, &["acme/site is set up. Its tools/prepare.sh was run"]);
    rig.sh("three", "ls ~/prepared").await;
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_room_that_may_clone_a_repository_gets_what_was_made_of_it() {
    let script = "echo private > ~/.made";
    let rig = Rig::new(script).await;
    rig.show(Shown::ToTheKey);
    let site = Subject::Repository(Repository::parse("acme/site").unwrap());
    let grant = async |room: &str| {
        rig.rights.grant(&rig.room(room), site.clone(), false, "@ann:a.org", Lasts::Room).await.unwrap()
    };
    let has = async |room: &str| rig.sh(room, "cat ~/.made 2>/dev/null || true").await.contains("private");
    grant("granted").await;
    good(&rig.clone_in("granted").await.0, &["acme/site is set up. Its .matrix-agent/setup.sh was run"]);
    assert!(has("granted").await);

    let closed = "acme/site was not set up: this room cannot clone it now. github.com does not show it without a key";
    let kept = "acme/site is set up. Its .matrix-agent/setup.sh had been run";
    let told = rig.claim("other", script).await;
    assert!(told.contains(closed) && !has("other").await, "{told}");
    // Nor is anything made for it.
    let told = rig.claim("other", "echo another > ~/.made").await;
    assert!(told.contains(closed), "{told}");
    grant("other").await;
    let told = rig.claim("other", script).await;
    assert!(told.contains(kept) && has("other").await, "{told}");
    rig.rights.revoke(&rig.room("other"), Some(&site)).await.unwrap();
    let told = rig.claim("other", script).await;
    assert!(told.contains(closed) && !has("other").await, "{told}");

    rig.show(Shown::Not);
    let told = rig.claim("third", script).await;
    assert!(
        told.contains("this room cannot clone it now. github.com ended the connection without a usable answer."),
        "{told}"
    );
    assert!(!has("third").await);
    rig.show(Shown::ToAll);
    let told = rig.claim("third", script).await;
    assert!(told.contains(kept) && has("third").await, "{told}");
    rig.is_tidy().await;
    rig.bench.close().await;
}

/// Returns SHA-256 in hex, as `sha256sum` does.
fn sha256(text: &str) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

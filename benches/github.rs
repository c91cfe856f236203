//! What the way to GitHub costs: what the gateway adds to a clone of 100 MB, beside the same clone from the same server directly,
//! in turns; what a repository's environment adds to a clone, beside unpacking as much in the same sandbox; and how long
//! it takes to look whether a grant covers something.

use std::{
    fs,
    time::{Duration, Instant},
};

use matrix_agent::{
    clock::Clock,
    environments::{EnvironmentOptions, Environments},
    gateway::{GatewayLimits, ProxyKind},
    ids::Address,
    rights::{Act, Lasts, Rights, Roles, Subject},
    sandbox::{SandboxOptions, Sandboxes},
    store::{Durability, Store},
};

use door::Door;
use measures::{House, Times, end, output, row, run, table};
use server::{git, serve};
use support::tls::Authority;

#[expect(dead_code, reason = "the gateway's tests use the rest")]
#[path = "../tests/gateway/door.rs"]
mod door;
#[path = "support/mod.rs"]
mod measures;
#[path = "support/git.rs"]
mod server;
/// What the door needs of the tests' support.
#[expect(dead_code, unreachable_pub, reason = "tests use the rest, from elsewhere")]
mod support {
    #[path = "../../tests/support/tls.rs"]
    pub mod tls;
}

/// Files of a MiB each, of which the repository is made; nothing in them can be compressed.
const FILES: usize = 100;
const CLONES: usize = 12;
const CHECKS: usize = 200_000;
/// Rooms into which an environment is brought.
const ROOMS: usize = 12;
/// What the repository's setup leaves, 60 MB: 3,000 files of 20 KB that compress as code does, by half.
const SETUP: &str = "mkdir node_modules && cd node_modules && \
    for file in $(seq 3000); do head -c 7500 /dev/urandom | base64 -w 76 | head -c 10000 > $file.js; head -c 10000 /dev/zero >> $file.js; done";
/// The image in which git knows the way to GitHub.
const AGENT: &str = "localhost/matrix-agent-sandbox:latest";
const SETUP_LIMIT: Duration = Duration::from_mins(5);

fn main() {
    run(async {
        let started = Instant::now();
        table("The way to GitHub");
        clone().await;
        environment().await;
        grant().await;
        end(started);
    });
}

async fn clone() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]).await;
    for number in 0..FILES {
        let mut content = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut content).unwrap();
        fs::write(work.join(format!("file{number}")), content).unwrap();
    }
    git(&work, &["add", "."]).await;
    git(&work, &["commit", "-q", "-m", "all"]).await;
    let bare = folder.path().join("root/acme/site");
    git(&work, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]).await;
    git(&bare, &["repack", "-q", "-a", "-d"]).await;

    let authority = Authority::new();
    let mut door = Door::with_root(&[], GatewayLimits::default(), Some(&authority.pem()));
    let mut servers = Vec::new();
    for name in ["github.com", "localhost"] {
        let (acceptor, root) = (authority.acceptor(name), folder.path().join("root"));
        servers.push(door.server(move |stream| serve(stream, acceptor.clone(), root.clone())).await.address);
    }
    door.name("github.com", &["203.0.113.5"]);
    door.route("203.0.113.5:0", servers[0]);
    let pem = folder.path().join("ca.pem");
    fs::write(&pem, authority.pem()).unwrap();
    let gateway = format!("http://{}/github.com", door.listen(ProxyKind::Git).await);
    let directly = format!("https://localhost:{}", servers[1].port());

    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for number in 0..CLONES {
        for (base, times) in [(&gateway, &mut ours), (&directly, &mut theirs)] {
            let trust = format!("http.sslCAInfo={}", pem.display());
            let start = Instant::now();
            let url = format!("{base}/acme/site");
            git(folder.path(), &["-c", &trust, "clone", "-q", "--bare", &url, "clone"]).await;
            // The first ones meet what is not in the page cache yet.
            if number > 1 {
                times.since(start);
            }
            fs::remove_dir_all(folder.path().join("clone")).unwrap();
        }
    }
    row(
        &format!("a clone of {FILES} MB, the median of {}", ours.count()),
        "≤ 1.05 ×",
        &format!("{:.0} ms", ours.median()),
        &format!("directly {:.0} ms", theirs.median()),
        &format!("{:.2} ×", ours.median() / theirs.median()),
    );
}

/// Rooms that clone a repository whose environment is kept.
async fn environment() {
    let house = House::new("bench-env");
    let folder = house.directory.path();
    let work = folder.join("work");
    fs::create_dir_all(work.join(".matrix-agent")).unwrap();
    git(&work, &["init", "-q", "-b", "main"]).await;
    fs::write(work.join(".matrix-agent/setup.sh"), SETUP).unwrap();
    fs::write(work.join(".gitignore"), "node_modules\n").unwrap();
    git(&work, &["add", "."]).await;
    git(&work, &["commit", "-q", "-m", "all"]).await;
    git(&work, &["clone", "-q", "--bare", ".", folder.join("root/acme/site").to_str().unwrap()]).await;

    let authority = Authority::new();
    let mut door = Door::with_root(&[], GatewayLimits::default(), Some(&authority.pem()));
    let (acceptor, root) = (authority.acceptor("github.com"), folder.join("root"));
    let server = door.server(move |stream| serve(stream, acceptor.clone(), root.clone())).await.address;
    door.name("github.com", &["203.0.113.5"]);
    door.route("203.0.113.5:0", server);
    let options = SandboxOptions { image: AGENT.to_owned(), ..house.options() };
    let fleet = Sandboxes::open(options, door.gateway.clone(), &door.cancel).await.unwrap();
    let kept = EnvironmentOptions { folder: folder.join("kept"), bound: 1 << 30, secrets: None };
    let environments = Environments::open(fleet.clone(), kept).unwrap();

    let (mut ours, mut theirs) = (Times::new(), Times::new());
    let mut bytes = 0;
    for number in 0..ROOMS {
        let room = house.room(&format!("r{number}"));
        let sandbox = fleet.ensure(&room).await.unwrap();
        output(&sandbox, &["git", "clone", "-q", "https://github.com/acme/site"]).await;
        let start = Instant::now();
        let places = environments.look(&sandbox).await.unwrap();
        let brought = environments.bring(&room, &places[0], SETUP_LIMIT, || ()).await.unwrap();
        // The first room has it made.
        if !brought.made {
            ours.since(start);
        }
        bytes = brought.bytes;
        output(&sandbox, &["tar", "--create", "--file=/tmp/all.tar", "--directory=/workspace/site", "node_modules"])
            .await;
        output(&sandbox, &["mkdir", "/workspace/again"]).await;
        let start = Instant::now();
        output(&sandbox, &["tar", "--extract", "--file=/tmp/all.tar", "--directory=/workspace/again"]).await;
        theirs.since(start);
        let there = output(
            &sandbox,
            &["sh", "-c", "ls /workspace/site/node_modules /workspace/again/node_modules | grep -c js"],
        )
        .await;
        assert_eq!(there, "6000");
        fleet.remove(&room, true).await.unwrap();
    }
    fleet.shutdown().await;
    row(
        &format!("an environment of {} MB in 3,000 files, the median of {}", bytes / 1_000_000, ours.count()),
        "≤ 300 ms",
        &format!("{:.0} ms", ours.median()),
        &format!("unpacking it in the sandbox {:.0} ms", theirs.median()),
        &format!("{:.2} ×", ours.median() / theirs.median()),
    );
}

/// A room with as many grants as one may have.
async fn grant() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
    let rights = Rights::new(store, Roles::default());
    rights.load().await.unwrap();
    let at = Address::of_first("!room");
    for number in 0..100 {
        let subject = Subject::Host(format!("host{number}.example.org"));
        rights.grant(&at, subject, false, "ann", Lasts::Room).await.unwrap();
    }
    let (known, other) = (Act::Host("host99.example.org".to_owned()), Act::Host("other.example.org".to_owned()));
    let start = Instant::now();
    for _ in 0..CHECKS / 2 {
        assert!(rights.covers(&at, std::hint::black_box(&known)));
        assert!(!rights.covers(&at, std::hint::black_box(&other)));
    }
    let each = start.elapsed().as_secs_f64() * 1e3 / CHECKS as f64;
    row("whether a grant covers something, of 100", "≤ 0.1 ms", &format!("{each:.4} ms"), "", "");
}

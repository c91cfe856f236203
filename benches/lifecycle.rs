//! A room's sandbox from nothing, from its stop, and thirty at once, each beside the same container made and started by
//! bare requests to Podman's REST API; and what the first room of a new image costs.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bollard::Docker;
use matrix_agent::sandbox::{SandboxState, Sandboxes};
use tokio::task::JoinSet;

use support::{
    House, IMAGE, Times,
    bare::{Template, stop},
    end, podman, row, run, table,
};

mod support;

const ROOMS: u64 = 15;
const CROWD: u64 = 30;
const CROWDS: u64 = 3;

fn main() {
    run(measure());
}

async fn measure() {
    let house = House::new("bench-life");
    let template = Template::capture(&house).await;
    let fleet = house.open(house.options()).await;
    let docker = house.docker();
    let started = Instant::now();
    table("A sandbox");
    one_by_one(&house, &fleet, &docker, &template).await;
    crowd(&house, &fleet, &docker, &template).await;
    fleet.shutdown().await;
    new_image(&house).await;
    end(started);
}

async fn one_by_one(house: &House, fleet: &Sandboxes, docker: &Docker, template: &Template) {
    let [mut new, mut bare_new, mut again, mut bare_again] = [const { Times::new() }; 4];
    for number in 0..ROOMS {
        let bare = template.bare(number);
        let start = Instant::now();
        bare.run(docker).await;
        bare_new.since(start);
        stop(docker, &bare.name).await;
        let start = Instant::now();
        bare.start(docker).await;
        bare_again.since(start);
        bare.remove(docker).await;

        let room = house.room(&format!("r{number}"));
        let start = Instant::now();
        fleet.ensure(&room).await.unwrap();
        new.since(start);
        let name = House::container(fleet, &room).await;
        stop(docker, &name).await;
        while fleet.list().await.unwrap().iter().any(|it| it.address == room && it.state != SandboxState::Stopped) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        fleet.ensure(&room).await.unwrap();
        again.since(start);
        fleet.remove(&room, true).await.unwrap();
    }
    compare("a new room's sandbox ready, median", "REST create and start", "≤ 1.2 ×", &new, &bare_new);
    compare("a stopped one ready again, median", "REST start", "≤ 1.2 ×", &again, &bare_again);
}

async fn crowd(house: &House, fleet: &Sandboxes, docker: &Docker, template: &Template) {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for time in 0..CROWDS {
        let bare: Vec<_> = (0..CROWD).map(|number| template.bare(1000 + number)).collect();
        let start = Instant::now();
        let mut starts = JoinSet::new();
        for bare in bare {
            let docker = docker.clone();
            starts.spawn(async move {
                bare.run(&docker).await;
                bare
            });
        }
        let bare = starts.join_all().await;
        theirs.since(start);
        for bare in bare {
            bare.remove(docker).await;
        }

        let rooms: Vec<_> = (0..CROWD).map(|number| house.room(&format!("c{time}-{number}"))).collect();
        let start = Instant::now();
        let mut starts = JoinSet::new();
        for room in rooms.clone() {
            let fleet = fleet.clone();
            starts.spawn(async move { fleet.ensure(&room).await.map(drop).unwrap() });
        }
        starts.join_all().await;
        ours.since(start);
        for room in rooms {
            fleet.remove(&room, true).await.unwrap();
        }
    }
    let what = format!("{CROWD} new rooms at once, median of {CROWDS}");
    compare(&what, "bare ones in parallel", "≤ 1.3 ×", &ours, &theirs);
}

/// The first and the second room of an image that Podman has not yet run.
async fn new_image(house: &House) {
    let image = format!("localhost/{}:latest", house.instance);
    let source = podman(&["create", IMAGE]);
    let tar = house.directory.path().join("image.tar");
    let tar = tar.to_str().unwrap();
    podman(&["export", "--output", tar, &source]);
    podman(&["rm", &source]);
    podman(&["import", "--quiet", tar, &image]);
    std::fs::remove_file(tar).unwrap();

    let mut options = house.options();
    options.image.clone_from(&image);
    let fleet = house.open(options).await;
    let storage = podman(&["info", "--format", "{{.Store.GraphRoot}}"]);
    let mut told = Vec::new();
    for name in ["first", "second"] {
        let before = used(&storage);
        let start = Instant::now();
        fleet.ensure(&house.room(name)).await.unwrap();
        let seconds = start.elapsed().as_secs_f64();
        told.push(format!("{seconds:.2} s, {:.0} KB", (used(&storage) - before) / 1e3));
    }
    for name in ["first", "second"] {
        fleet.remove(&house.room(name), true).await.unwrap();
    }
    fleet.shutdown().await;
    row("the first room of a new image", "told", &told[0], &format!("the second: {}", told[1]), "");
    podman(&["rmi", &image]);
}

/// Bytes that Podman's storage takes. Not those of the whole file system, into which others write as well.
fn used(storage: &str) -> f64 {
    let done = Command::new("du").args(["-s", "-x", "--block-size=1", storage]).output().unwrap();
    String::from_utf8_lossy(&done.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

fn compare(what: &str, with: &str, goal: &str, ours: &Times, theirs: &Times) {
    let (ours, theirs) = (ours.median(), theirs.median());
    row(what, goal, &format!("{ours:.0} ms"), &format!("{theirs:.0} ms ({with})"), &format!("{:.2} ×", ours / theirs));
}

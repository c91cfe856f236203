//! Bare containers to compare a room's with: the body of their create request is the very one that the server sends for
//! a room, taken off the wire, with names, directories and ids of their own.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error,
    models::{ContainerCreateBody, MountType},
    query_parameters::{
        CreateContainerOptions, RemoveContainerOptions, RemoveVolumeOptions, StartContainerOptions,
        StopContainerOptions,
    },
};

use super::House;

/// Ids of one container.
const IDS: u64 = 65_536;

/// The request that the server sends for a new room.
pub struct Template {
    body: ContainerCreateBody,
    directory: PathBuf,
    instance: String,
    /// The first id on the host of the room that the template was taken from.
    first: u64,
}

/// A bare container's name and its body.
pub struct Bare {
    pub name: String,
    pub body: ContainerCreateBody,
}

impl Template {
    /// Has the server make a room through a listening socket in front of Podman's.
    pub async fn capture(house: &House) -> Self {
        let socket = house.directory.path().join("listen.sock");
        let heard = listen(&socket, &house.directory.path().join("podman.sock"));
        let mut options = house.options();
        options.podman_socket = Some(socket);
        let fleet = house.open(options).await;
        let room = house.room("template");
        fleet.ensure(&room).await.unwrap();
        fleet.remove(&room, true).await.unwrap();
        fleet.shutdown().await;

        let heard = heard.lock().unwrap().clone();
        let request = find(&heard, b"/containers/create?").expect("the server made a container");
        let body = request + find(&heard[request..], b"\r\n\r\n").unwrap() + 4;
        let mut bodies = serde_json::Deserializer::from_slice(&heard[body..]).into_iter::<ContainerCreateBody>();
        let body = bodies.next().unwrap().unwrap();
        let userns = body.host_config.as_ref().unwrap().userns_mode.as_deref().unwrap();
        let first = userns.split("uidmapping=0:").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        Self { body, directory: house.directory.path().join("bare"), instance: house.instance.clone(), first }
    }

    /// A container like a room's. Its directories are made here; the volume Podman makes with the container.
    pub fn bare(&self, number: u64) -> Bare {
        let name = format!("{}-bare-{number}", self.instance);
        let mut body = self.body.clone();
        let host = body.host_config.as_mut().unwrap();
        // Half the ids above: what the server gives to its rooms lies beside the template's.
        let first = if self.first > 3_000_000_000 { self.first - 500_000_000 } else { self.first + 500_000_000 };
        let first = first + number * IDS;
        host.userns_mode =
            host.userns_mode.as_ref().map(|mode| mode.replace(&self.first.to_string(), &first.to_string()));
        for mount in host.mounts.as_mut().unwrap() {
            let target = mount.target.clone().unwrap();
            if mount.typ == Some(MountType::VOLUME) {
                mount.source = Some(name.clone());
            } else if mount
                .source
                .as_ref()
                .is_some_and(|source| Path::new(source).is_dir() || !Path::new(source).exists())
            {
                let directory = self.directory.join(format!("{number}{}", target.replace('/', "-")));
                fs::create_dir_all(&directory).unwrap();
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
                chown(&directory, Some(first as u32 + 1000), Some(first as u32 + 1000)).unwrap();
                mount.source = Some(directory.to_str().unwrap().to_owned());
            }
        }
        Bare { name, body }
    }
}

impl Bare {
    /// Creates and starts it: two requests.
    pub async fn run(&self, docker: &Docker) {
        let options = CreateContainerOptions { name: Some(self.name.clone()), ..Default::default() };
        docker.create_container(Some(options), self.body.clone()).await.unwrap();
        self.start(docker).await;
    }

    pub async fn start(&self, docker: &Docker) {
        docker.start_container(&self.name, None::<StartContainerOptions>).await.unwrap();
    }

    /// Removes it with its volume. Podman refuses while it still cleans up, so it is asked again.
    pub async fn remove(&self, docker: &Docker) {
        let mut last = None;
        for _ in 0..40 {
            let options = RemoveContainerOptions { force: true, ..Default::default() };
            let removed = match gone(docker.remove_container(&self.name, Some(options)).await) {
                Ok(()) => gone(docker.remove_volume(&self.name, None::<RemoveVolumeOptions>).await),
                refused => refused,
            };
            match removed {
                Ok(()) => return,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("Podman does not remove {}: {last:?}", self.name);
    }
}

fn gone(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        removed => removed,
    }
}

/// Stops a container, a room's or a bare one.
pub async fn stop(docker: &Docker, name: &str) {
    let options = StopContainerOptions { t: Some(3), ..Default::default() };
    docker.stop_container(name, Some(options)).await.unwrap();
}

/// Passes connections on to `podman` and keeps all that is said to it.
fn listen(socket: &Path, podman: &Path) -> Arc<Mutex<Vec<u8>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (listener, podman, all) = (UnixListener::bind(socket).unwrap(), podman.to_owned(), Arc::clone(&heard));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&podman).unwrap();
            let (back, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let heard = Arc::clone(&all);
            std::thread::spawn(move || pass(client, server, |bytes| heard.lock().unwrap().extend_from_slice(bytes)));
            std::thread::spawn(move || pass(back, to, |_| {}));
        }
    });
    heard
}

fn pass(mut from: UnixStream, mut to: UnixStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        note(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

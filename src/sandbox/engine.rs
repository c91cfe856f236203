//! Podman's operations as this server needs them: create, start, stop, kill, inspect, watch, remove, and the same for
//! volumes.
//!
//! Only this file, `service.rs` and `spec.rs` use bollard, so that a second engine could offer the same operations.
//! Knows labels but no rooms.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    errors::Error as Bollard,
    models::{
        ContainerCreateBody, ContainerStateStatusEnum, ContainerSummaryStateEnum, EventMessage, MountPoint,
        VolumeCreateRequest,
    },
    query_parameters::{
        CreateContainerOptions, EventsOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions,
        ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions, StartContainerOptions, StopContainerOptions,
    },
};
use futures_util::{Stream, StreamExt};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{event_mount, runtime::Runtime, service::Service};
use crate::{strings::sandboxes as words, text};

/// How often a removal that Podman refused is tried again, and the pause between two tries.
const REMOVALS: u32 = 10;
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);

/// The most characters of Podman's own words that are passed on.
const REASON: usize = 400;

/// Why Podman did not do what it was asked. The text is for the room or the terminal, and says what to do.
#[derive(Clone, Debug, Error)]
pub enum EngineError {
    /// Podman does not answer.
    #[error("{}", words::podman_away(.0))]
    Away(String),
    /// Podman answered too late; holds what was asked.
    #[error("{}", words::podman_slow(.0))]
    TimedOut(&'static str),
    /// The image does not exist.
    #[error("{}", words::image_missing(.0))]
    ImageMissing(String),
    /// There is no such container or volume.
    #[error("{}", words::not_found(.0))]
    NotFound(String),
    /// The name is in use.
    #[error("{}", words::name_taken(.0))]
    Taken(String),
    /// Podman refused, in its own words.
    #[error("{}", words::podman_refused(.doing, .why))]
    Refused {
        /// What it was asked to do.
        doing: &'static str,
        /// Its answer, on one line.
        why: String,
    },
}

/// The state of a container, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// PID 1 runs.
    Running,
    /// PID 1 runs, frozen.
    Paused,
    /// Podman believes that PID 1 runs, but there is no such process. That passes by itself when it has just ended; it stays
    /// so where the process that watched it for Podman was killed too, and then the container can only be removed.
    Gone,
    /// PID 1 does not run; the container can be started.
    Stopped,
}

/// A container as Podman lists it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its state.
    pub condition: Condition,
}

/// A container as Podman's inspect shows it.
#[derive(Clone, Debug)]
pub(crate) struct Inspected {
    /// Its id, 64 hex digits.
    pub id: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its state.
    pub condition: Condition,
    /// The pid of its PID 1 on the host, while it runs.
    pub pid: Option<u32>,
    /// PID 1's last exit code.
    pub exit_code: i64,
    /// When it was last started, in RFC 3339.
    pub started_at: String,
    /// The image's id.
    pub image: String,
    /// The directory of its writable layer, where the storage driver has one.
    pub writable_layer: Option<PathBuf>,
    /// The name of its volume.
    pub volume_name: Option<String>,
    /// The directory of its volume's files.
    pub volume: Option<PathBuf>,
}

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Its name.
    pub name: String,
    /// The directory of its files on the host.
    pub mountpoint: PathBuf,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// The mount options of its driver; empty for a directory in Podman's storage.
    pub options: HashMap<String, String>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its id, which changes with its content.
    pub id: String,
    /// The digest of its manifest, for display; its id if it has none.
    pub digest: String,
}

/// Something that happened to a container.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    /// The container's name.
    pub name: String,
    /// What happened.
    pub what: Change,
}

/// What may happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its PID 1 ended, with this exit code if the event tells.
    Died(Option<i64>),
    /// It was frozen.
    Paused,
    /// It was unfrozen.
    Unpaused,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    service: Service,
}

impl Engine {
    /// Starts looking for Podman, without waiting for it. The background task runs in `tasks` and ends with `cancel`.
    pub(crate) fn start(
        socket: Option<PathBuf>,
        podman: PathBuf,
        runtime: Option<Runtime>,
        state_dir: &Path,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self { service: Service::start(socket, podman, runtime, state_dir, tasks, cancel) }
    }

    /// Waits until it is known whether Podman answers.
    pub(crate) async fn reached(&self) -> Result<(), EngineError> {
        self.service.client().await.map(|_| ()).map_err(EngineError::Away)
    }

    /// Waits until Podman answers, however long that takes; returns `false` when the server shuts down.
    pub(crate) async fn up(&self) -> bool {
        self.service.up().await.is_ok()
    }

    /// Has the socket checked, since a request to it failed oddly.
    pub(crate) fn suspect(&self) {
        self.service.report();
    }

    /// Returns the socket at which Podman answers now.
    pub(crate) async fn socket(&self) -> Result<PathBuf, EngineError> {
        self.service.socket().await.map_err(EngineError::Away)
    }

    /// Looks an image up.
    pub(crate) async fn image(&self, image: &str) -> Result<Image, EngineError> {
        let found = match self.docker().await?.inspect_image(image).await {
            Ok(found) => found,
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => {
                return Err(EngineError::ImageMissing(image.to_owned()));
            }
            Err(error) => return Err(self.failed("inspect the image", image, &error)),
        };
        let id = found.id.unwrap_or_default();
        let digest = found.repo_digests.unwrap_or_default().into_iter().next();
        let digest = digest.and_then(|name| name.split_once('@').map(|(_, digest)| digest.to_owned()));
        Ok(Image { digest: digest.unwrap_or_else(|| id.clone()), id })
    }

    /// Creates a container. `image` is used in error texts only.
    pub(crate) async fn create(&self, name: &str, image: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        match self.docker().await?.create_container(Some(options), body).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = name, %warning, "Podman warns");
                }
                Ok(())
            }
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => {
                Err(EngineError::ImageMissing(image.to_owned()))
            }
            Err(Bollard::DockerResponseServerError { message, .. }) if message.contains("already in use") => {
                Err(EngineError::Taken(name.to_owned()))
            }
            Err(error) => Err(self.failed("create the container", name, &error)),
        }
    }

    /// Starts a container; one that runs already is no error.
    pub(crate) async fn start_container(&self, name: &str) -> Result<(), EngineError> {
        let started = self.docker().await?.start_container(name, None::<StartContainerOptions>).await;
        self.done("start the container", name, started)
    }

    /// Stops a container: SIGTERM, and SIGKILL after `grace`. One that is stopped already is no error.
    pub(crate) async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let options = StopContainerOptions { t: i32::try_from(grace.as_secs()).ok(), ..Default::default() };
        let stopped = self.docker().await?.stop_container(name, Some(options)).await;
        self.done("stop the container", name, stopped)
    }

    /// Kills a container at once, frozen or not. One that is stopped already is no error.
    pub(crate) async fn kill(&self, name: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        match self.docker().await?.kill_container(name, Some(options)).await {
            // Podman has no error code of its own for "not running".
            Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(Bollard::DockerResponseServerError { message, .. }) if message.contains("state improper") => Ok(()),
            killed => self.done("kill the container", name, killed),
        }
    }

    /// Freezes a container's processes.
    pub(crate) async fn pause(&self, name: &str) -> Result<(), EngineError> {
        let paused = self.docker().await?.pause_container(name).await;
        self.done("pause the container", name, paused)
    }

    /// Lets a frozen container run on.
    pub(crate) async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        let unpaused = self.docker().await?.unpause_container(name).await;
        self.done("unpause the container", name, unpaused)
    }

    /// Removes a container, running or not. One that is gone already is no error.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let mut tries = 0;
        loop {
            let options = RemoveContainerOptions { force: true, ..Default::default() };
            match self.docker().await?.remove_container(name, Some(options)).await {
                Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
                // Podman's own cleanup of the container may still be running.
                Err(Bollard::DockerResponseServerError { message, .. }) if tries < REMOVALS => {
                    tracing::debug!(container = name, %message, "a container is not removed at once; trying again");
                    tries += 1;
                    sleep(REMOVAL_PAUSE).await;
                }
                removed => return self.done("remove the container", name, removed),
            }
        }
    }

    /// Shows a container.
    pub(crate) async fn inspect(&self, name: &str) -> Result<Inspected, EngineError> {
        let docker = self.docker().await?;
        let found = settled(|| docker.inspect_container(name, None::<InspectContainerOptions>)).await;
        let found = found.map_err(|error| self.failed("inspect the container", name, &error))?;
        let state = found.state.unwrap_or_default();
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        let condition = match state.status {
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) if pid.is_some_and(is_gone) => {
                Condition::Gone
            }
            Some(ContainerStateStatusEnum::RUNNING) => Condition::Running,
            Some(ContainerStateStatusEnum::PAUSED) => Condition::Paused,
            _ => Condition::Stopped,
        };
        let layer = found.graph_driver.and_then(|driver| driver.data.get("UpperDir").map(PathBuf::from));
        let mounts = found.mounts.unwrap_or_default();
        let is_files = |mount: &MountPoint| mount.destination.as_deref() != Some(event_mount::MOUNT);
        let is_volume = |mount: &MountPoint| mount.name.as_ref().is_some_and(|name| !name.is_empty());
        let volume = mounts.into_iter().find(|mount| is_volume(mount) && is_files(mount));
        Ok(Inspected {
            id: found.id.unwrap_or_default(),
            labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
            condition,
            pid,
            exit_code: state.exit_code.unwrap_or_default(),
            started_at: state.started_at.unwrap_or_default(),
            image: found.image.unwrap_or_default(),
            writable_layer: layer,
            volume_name: volume.as_ref().and_then(|mount| mount.name.clone()),
            volume: volume.and_then(|mount| mount.source).map(PathBuf::from),
        })
    }

    /// Lists the containers that carry `label` (`key` or `key=value`), running or not.
    pub(crate) async fn list(&self, label: &str) -> Result<Vec<Listed>, EngineError> {
        let docker = self.docker().await?;
        let options = ListContainersOptions { all: true, filters: Some(filter(label)), ..Default::default() };
        let found = settled(|| docker.list_containers(Some(options.clone()))).await;
        let found = found.map_err(|error| self.failed("list the containers", label, &error))?;
        Ok(found
            .into_iter()
            .filter_map(|container| {
                let name = container.names?.into_iter().next()?.trim_start_matches('/').to_owned();
                let condition = match container.state {
                    Some(ContainerSummaryStateEnum::RUNNING) => Condition::Running,
                    Some(ContainerSummaryStateEnum::PAUSED) => Condition::Paused,
                    _ => Condition::Stopped,
                };
                Some(Listed { name, labels: container.labels.unwrap_or_default(), condition })
            })
            .collect())
    }

    /// Returns a stream of what happens to containers with `label` from now on. It ends when Podman goes away.
    pub(crate) async fn watch(&self, label: &str) -> Result<impl Stream<Item = Happened> + use<>, EngineError> {
        let mut filters = filter(label);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptions { filters: Some(filters), ..Default::default() };
        let events = self.docker().await?.events(Some(options));
        Ok(events.take_while(|event| std::future::ready(event.is_ok())).filter_map(async |event| happened(event.ok()?)))
    }

    /// Creates a volume; if the name is in use, returns the volume that has it, whoever made it.
    pub(crate) async fn create_volume(
        &self,
        name: &str,
        labels: HashMap<String, String>,
        driver_opts: HashMap<String, String>,
    ) -> Result<Volume, EngineError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            driver_opts: Some(driver_opts),
            ..Default::default()
        };
        let made = self.docker().await?.create_volume(request).await;
        made.map(volume).map_err(|error| self.failed("create the volume", name, &error))
    }

    /// Lists the volumes that carry `label` (`key` or `key=value`).
    pub(crate) async fn volumes(&self, label: &str) -> Result<Vec<Volume>, EngineError> {
        let options = ListVolumesOptions { filters: Some(filter(label)) };
        let found = self.docker().await?.list_volumes(Some(options)).await;
        let found = found.map_err(|error| self.failed("list the volumes", label, &error))?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(volume).collect())
    }

    /// Removes a volume with all that is in it. One that is gone already is no error.
    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        match self.docker().await?.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            removed => self.done("remove the volume", name, removed),
        }
    }

    async fn docker(&self) -> Result<bollard::Docker, EngineError> {
        self.service.client().await.map_err(EngineError::Away)
    }

    /// Turns "it is so already" into success.
    fn done(&self, doing: &'static str, name: &str, result: Result<(), Bollard>) -> Result<(), EngineError> {
        match result {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
            Err(error) => Err(self.failed(doing, name, &error)),
        }
    }

    /// Turns bollard's error into ours, and has the socket checked if the request could not be sent.
    fn failed(&self, doing: &'static str, name: &str, error: &Bollard) -> EngineError {
        match error {
            Bollard::DockerResponseServerError { status_code: 404, .. } => EngineError::NotFound(name.to_owned()),
            Bollard::DockerResponseServerError { message, .. } => {
                let words: Vec<_> = message.split_whitespace().collect();
                let why = words.join(" ").chars().take(REASON).collect();
                EngineError::Refused { doing, why }
            }
            Bollard::RequestTimeoutError => EngineError::TimedOut(doing),
            Bollard::JsonDataError { message, .. } => {
                EngineError::Refused { doing, why: format!("its answer is not understood ({message})") }
            }
            error => {
                self.service.report();
                EngineError::Away(text::root_cause(error))
            }
        }
    }
}

/// Asks again while the answer contains a state that bollard cannot parse: between PID 1's end and the cleanup (a
/// tenth of a second) Podman calls a container `stopped`, a state that Docker does not have.
async fn settled<T, F: Future<Output = Result<T, Bollard>>>(mut ask: impl FnMut() -> F) -> Result<T, Bollard> {
    for _ in 0..40 {
        match ask().await {
            Err(Bollard::JsonDataError { .. }) => sleep(Duration::from_millis(50)).await,
            answer => return answer,
        }
    }
    ask().await
}

fn filter(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

fn volume(volume: bollard::models::Volume) -> Volume {
    Volume {
        name: volume.name,
        mountpoint: PathBuf::from(volume.mountpoint),
        labels: volume.labels,
        options: volume.options,
    }
}

fn happened(event: EventMessage) -> Option<Happened> {
    let attributes = event.actor?.attributes?;
    let what = match event.action.as_deref()? {
        // Some versions of Podman say `died`, Docker says `die`, and the API's own filter knows only one of them.
        "die" | "died" => {
            let exit_code = attributes.get("containerExitCode").or_else(|| attributes.get("exitCode"));
            Change::Died(exit_code.and_then(|code| code.parse().ok()))
        }
        "pause" => Change::Paused,
        "unpause" => Change::Unpaused,
        _ => return None,
    };
    Some(Happened { name: attributes.get("name")?.clone(), what })
}

/// Tells whether a process of the host has ended, by its pid.
fn is_gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state stands behind the program's name, which may hold anything.
        Ok(stat) => stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_settled_is_asked_for_again() {
        let mut asked = 0;
        let answer = settled(|| {
            asked += 1;
            let unsettled = Bollard::JsonDataError { message: "unknown variant `stopped`".to_owned(), column: 1 };
            std::future::ready(if asked < 3 { Err(unsettled) } else { Ok(asked) })
        });
        assert_eq!(answer.await.ok(), Some(3));
    }
}

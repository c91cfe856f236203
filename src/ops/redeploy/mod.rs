//! A newer version of the program takes the place of the one that serves, or the one that serves goes on.
//!
//! The work is done by a process of its own, which is no part of the server: systemd's oneshot (`systemd/matrix-agent-redeploy.service`),
//! begun by a request in the state directory. `rules.rs` holds the rules and does no I/O; how far it has come is on the disk before
//! each step begins, so that whoever is started after a kill ends it, by the program that served at the beginning.

mod git;
mod help;
mod over_matrix;
mod rules;
mod run;
mod service;
mod source;
mod work;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

pub(crate) use source::{Source, SourceError};

use self::{service::Service, work::Workshop};
use crate::{
    config::Config,
    ids,
    updates::{Found, Installed, Newer, Outcome, Plan, Record, Request, Step, Tell, UpdateError, Updates, Wanted},
};

/// Where scripts and units of the installed version are.
const LIBRARY: &str = "/usr/local/lib/matrix-agent";

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedeployError {
    /// Another process does it at this moment.
    #[error("Another update is being carried out at this moment. Wait until it has ended.")]
    Busy,
    /// It must not be done now.
    #[error("Nothing was changed. {0}")]
    Refused(String),
    /// Nothing is there to which it could go back.
    #[error("Nothing was changed: there is no {}, so nothing is known to go back to.", .0.display())]
    NothingBefore(PathBuf),
    /// A file of the shared directory cannot be used.
    #[error(transparent)]
    Files(#[from] UpdateError),
    /// Where updates come from is not known.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Replaces the program of a service.
pub(crate) struct Redeploy {
    source: Source,
    updates: Updates,
    state: PathBuf,
    ipc: PathBuf,
    settings: Vec<OsString>,
    image: String,
    podman: PathBuf,
}

impl Redeploy {
    /// Takes where updates come from out of the file `update.env` at this path. `settings` are the options by which programs of this
    /// service find their settings.
    pub(crate) fn new(config: &Config, update_env: &Path, settings: Vec<OsString>) -> Result<Self, RedeployError> {
        let state = config.paths.state_dir.clone();
        Ok(Self {
            source: Source::read(update_env)?,
            updates: Updates::of(&state),
            state,
            ipc: config.paths.ipc_base_dir.clone(),
            settings,
            image: config.sandbox.image.clone(),
            podman: config.sandbox.podman_path.clone(),
        })
    }

    fn workshop(&self) -> Workshop<'_> {
        Workshop {
            source: &self.source,
            updates: &self.updates,
            state: &self.state,
            ipc: &self.ipc,
            settings: &self.settings,
            image: &self.image,
            podman: &self.podman,
            library: Path::new(LIBRARY),
        }
    }

    /// Returns the files that this process shares with the others.
    pub(crate) fn updates(&self) -> &Updates {
        &self.updates
    }

    /// Returns what systemd is asked for to have the request carried out.
    pub(crate) async fn carrying_out(&self) -> tokio::process::Command {
        let service = Service { of_user: self.source.of_user };
        service.forgive().await;
        service.carry_out()
    }

    /// Looks what an update would bring, and whether it could be done. Changes nothing but what the clone knows of its remote.
    ///
    /// # Errors
    ///
    /// It cannot be done, and the sentence says why.
    pub(crate) async fn look(&self, named: Option<&str>) -> Result<Found, RedeployError> {
        let workshop = self.workshop();
        let installed = self.updates.installed()?;
        workshop.space().map_err(RedeployError::Refused)?;
        workshop.installed().map_err(RedeployError::Refused)?;
        match workshop.service().is_ready().await {
            Ok(true) => {}
            Ok(false) => {
                let why = "The server does not run, so nobody could tell a bad version from a bad machine. Start it, then try again.";
                return Err(RedeployError::Refused(why.to_owned()));
            }
            Err(why) => return Err(RedeployError::Refused(format!("systemd does not answer: {why}."))),
        }
        let installed = installed.map(|installed| installed.commit).filter(|commit| !commit.is_empty());
        workshop.git().look(installed.as_deref(), named).await.map_err(RedeployError::Refused)
    }

    /// Asks for a commit in place of what serves, or for what served before. Where another update was asked for before, which nobody may
    /// be carrying out, that one is gone on with.
    pub(crate) async fn ask(&self, wanted: Wanted, tell: Vec<Tell>) -> Result<Request, RedeployError> {
        let previous = self.source.beside("previous");
        if wanted == Wanted::Back && !previous.exists() {
            return Err(RedeployError::NothingBefore(previous));
        }
        let request = Request { id: ids::random(8), wanted, tell };
        let asked = self.updates.ask(&request);
        if let Err(UpdateError::Busy) = asked {
            self.workshop().service().go_on().await;
        }
        asked?;
        Ok(request)
    }

    /// Carries out what is asked for, or ends what another process has begun. Returns how the last replacement ended, if there
    /// was one. For the oneshot alone.
    ///
    /// # Errors
    ///
    /// Another process does it, or the files cannot be used.
    pub(crate) async fn carry_out(&self) -> Result<Option<Outcome>, RedeployError> {
        let _lock = self.lock()?;
        let outcome = self.carried_out().await?;
        self.workshop().service().forgive().await;
        Ok(outcome)
    }

    async fn carried_out(&self) -> Result<Option<Outcome>, RedeployError> {
        let record = match self.updates.record() {
            Ok(record) => record,
            Err(UpdateError::Broken { cause, .. }) => {
                return self.end_blindly(&format!("its record cannot be read: {cause}")).await;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(mut record) = record.filter(|record| record.step != Step::Ended) {
            rules::taken_up(&mut record);
            // Without a record each start would do the same again; where the old program serves, that would only disturb it.
            if let Err(error) = self.updates.keep_record(&record)
                && self.workshop().old_serves(&record).await
            {
                return Err(error.into());
            }
            return self.drive(record).await;
        }
        let request = match self.updates.asked() {
            Ok(request) => request,
            Err(error) => {
                // Nobody can tell what was meant, and nothing has begun.
                tracing::error!(%error, "a request for an update is dropped");
                self.updates.answered()?;
                return Ok(None);
            }
        };
        let ended = self.updates.record()?;
        match request {
            // It had ended, and was not cleared up behind.
            Some(request) if ended.as_ref().is_some_and(|record| record.request.id == request.id) => {
                self.clear_up(ended).await
            }
            Some(request) => self.begin(request).await,
            None => self.clear_up(ended).await,
        }
    }

    fn lock(&self) -> Result<Flock<File>, RedeployError> {
        let folder = self.updates.folder();
        let fail = |cause| UpdateError::Io { path: folder.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
        let file = File::create(folder.join("lock")).map_err(fail)?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| RedeployError::Busy)
    }

    /// Looks again, since whoever has asked may have looked long ago, and begins.
    async fn begin(&self, request: Request) -> Result<Option<Outcome>, RedeployError> {
        let named = match &request.wanted {
            Wanted::Commit { commit, named: true } => Some(commit.clone()),
            _ => None,
        };
        let found = match &request.wanted {
            Wanted::Back => Ok(None),
            _ => self.look(named.as_deref()).await.map(Some),
        };
        let found = match found {
            Ok(found) => found,
            Err(RedeployError::Refused(why)) => Some(Found::Refused { why }),
            Err(error) => Some(Found::Refused { why: error.to_string() }),
        };
        if request.wanted == Wanted::Look {
            let found = found.unwrap_or_else(|| Found::Refused { why: "Nothing was looked at.".to_owned() });
            self.updates.keep_plan(&Plan { id: request.id, found })?;
            self.updates.answered()?;
            return Ok(None);
        }
        let (newer, refused) = match (&request.wanted, found) {
            (Wanted::Back, _) => (Newer::default(), None),
            (Wanted::Commit { commit, .. }, Some(Found::Refused { why })) => (only(commit), Some(why)),
            (Wanted::Commit { commit, .. }, Some(Found::Newer(newer))) if newer.commit == *commit => (newer, None),
            (Wanted::Commit { commit, .. }, Some(Found::Newest { commit: newest })) if newest == *commit => {
                (only(commit), Some("that commit serves already".to_owned()))
            }
            (Wanted::Commit { commit, .. }, _) => {
                let why =
                    "the branch has moved on since that commit was confirmed: ask for the update again".to_owned();
                (only(commit), Some(why))
            }
            (Wanted::Look, _) => return Ok(None),
        };
        let Newer { commit, subject, from, .. } = newer;
        let mut record = Record {
            request,
            commit,
            subject,
            from,
            step: Step::Build,
            begun: 1,
            old: self.workshop().installed().unwrap_or_default(),
            new: None,
            image: None,
            over_matrix: vec![],
            why: None,
            outcome: None,
        };
        if let Some(why) = refused {
            rules::done(&mut record, Err(why));
        }
        self.drive(record).await
    }

    /// Does one step after the other. What is about to be done is on the disk before it begins; where the disk takes no record, no
    /// switch is begun, and one that was is brought to its end all the same.
    async fn drive(&self, mut record: Record) -> Result<Option<Outcome>, RedeployError> {
        let workshop = self.workshop();
        loop {
            if record.step == Step::Ended {
                if let Some(Outcome::Done { note }) = &mut record.outcome {
                    *note = workshop.left_by_hand().await;
                }
                self.updates.keep_record(&record)?;
                crate::crash::point("redeploy-ended");
                return self.clear_up(Some(record)).await;
            }
            if let Err(error) = self.updates.keep_record(&record) {
                if rules::unrecorded(&mut record, error.to_string()) {
                    continue;
                }
                tracing::error!(%error, "how far an update has come cannot be kept; it is brought to its end");
            }
            tracing::info!(step = ?record.step, begun = record.begun, "an update");
            let step = record.step;
            crate::crash::point(named(step, false));
            let result = match step {
                Step::Build => workshop.build(&mut record).await,
                Step::Try => workshop.try_out(&mut record).await,
                Step::Switch => workshop.switch(&record).await,
                Step::Await => workshop.await_ready(&record).await,
                Step::Back => workshop.back(&record).await,
                Step::Ended => Ok(()),
            };
            if let Err(why) = &result {
                tracing::warn!(?step, %why, "a step of an update has failed");
            }
            crate::crash::point(named(step, true));
            rules::done(&mut record, result);
        }
    }

    /// Puts away what a replacement has left, and takes its request off.
    async fn clear_up(&self, record: Option<Record>) -> Result<Option<Outcome>, RedeployError> {
        let outcome = record.as_ref().and_then(|record| record.outcome.clone());
        if let Some(record) = &record {
            let new = matches!(outcome, Some(Outcome::Done { .. }));
            if new {
                self.note_installed(record)?;
            }
            self.workshop().settle(Some(record), new).await;
            if new {
                help::renew(&self.source.program).await;
            }
        }
        self.updates.answered()?;
        Ok(outcome)
    }

    /// Notes which commit serves now, once.
    fn note_installed(&self, record: &Record) -> Result<(), UpdateError> {
        let was = self.updates.installed().ok().flatten().unwrap_or_default();
        let id = record.request.id.clone();
        if was.id == id {
            return Ok(());
        }
        let (commit, before) = match record.request.wanted {
            Wanted::Back => (was.before, was.commit),
            _ => (record.commit.clone(), record.from.clone()),
        };
        self.updates.keep_installed(&Installed { id, commit, before })
    }

    /// Sees that the old program serves, where nobody knows what has been done.
    async fn end_blindly(&self, why: &str) -> Result<Option<Outcome>, RedeployError> {
        tracing::error!(%why, "an update cannot go on");
        let workshop = self.workshop();
        let request = self.updates.asked().ok().flatten();
        let outcome = match workshop.back_blindly().await {
            Ok(true) => Outcome::Back { why: why.to_owned() },
            Ok(false) => Outcome::Kept { why: why.to_owned() },
            Err(now) => Outcome::Stuck { why: format!("{why}; {now}") },
        };
        let request = request.unwrap_or(Request { id: ids::random(8), wanted: Wanted::Look, tell: vec![] });
        let old = workshop.installed().unwrap_or_default();
        let record = Record {
            request,
            commit: String::new(),
            subject: String::new(),
            from: String::new(),
            step: Step::Ended,
            begun: 1,
            old,
            new: None,
            image: None,
            over_matrix: vec![],
            why: None,
            outcome: Some(outcome),
        };
        self.updates.keep_record(&record)?;
        let _ = fs::remove_file(self.source.beside("new"));
        self.clear_up(Some(record)).await
    }
}

/// Returns a version of which only the commit is known.
fn only(commit: &str) -> Newer {
    Newer { commit: commit.to_owned(), ..Newer::default() }
}

/// Returns the crash point at the beginning of a step, or at its end.
fn named(step: Step, end: bool) -> &'static str {
    match (step, end) {
        (Step::Build, false) => "redeploy-build",
        (Step::Build, true) => "redeploy-built",
        (Step::Try, false) => "redeploy-try",
        (Step::Try, true) => "redeploy-tried",
        (Step::Switch, false) => "redeploy-switch",
        (Step::Switch, true) => "redeploy-switched",
        (Step::Await, false) => "redeploy-await",
        (Step::Await, true) => "redeploy-ready",
        (Step::Back, false) => "redeploy-back",
        (Step::Back, true) => "redeploy-gone-back",
        (Step::Ended, _) => "redeploy-ended",
    }
}

//! What the settings mean to the layers that `config` must not know: does the model exist, are the patterns of hosts
//! valid, is everything set that a subcommand needs?
//!
//! Called by `cli` for every subcommand, and by `doctor`.

mod chat_bots;
mod models;
mod review;
mod web;

use std::{io, path::PathBuf};

use crate::{
    bots::{People, Places, Policy},
    chat::{
        matrix::{Fault, Login},
        terminal,
    },
    clock::Clock,
    config::{self, Config, JournalSync, Matrix, PlanApproval, SandboxRuntime, TALK_ACCOUNTS},
    environments::{EnvironmentOptions, Environments},
    gateway::{AllowedHosts, BadPattern, GatewayLimits, GatewayPolicy},
    ids::FIRST_ACCOUNT,
    ledger::{DayLimits, Ledger, Rules},
    orchestrator,
    rights::{Answerer, Listed, Roles},
    sandbox::{Runtime, SandboxOptions, Sandboxes, memory},
    store::{Durability, Store},
    tools::ToolLimits,
};

pub(super) use chat_bots::{cloud_bot, cloud_model, exobot, exobot_model, talk, talk_coder, talk_model};
pub(crate) use chat_bots::{cloud_login, exobot_login};
pub use models::model_settings;
pub(super) use models::{agents, models};
pub(crate) use models::{has_model, model, other_agents, with_demo_model};
pub(super) use review::only_talk;
pub(crate) use review::{Purpose, only_chat_bots, review, review_rooms};
pub(super) use web::{github, heard_elsewhere, http, tasks};

/// Returns the login of the account of `MATRIX_USER`, if that is set.
pub fn matrix_login(config: &Config) -> Option<Login> {
    config.matrix.as_ref().map(|matrix| login(config, FIRST_ACCOUNT, matrix))
}

/// Returns an account's login.
pub(super) fn login(config: &Config, name: &str, matrix: &Matrix) -> Login {
    Login {
        name: name.to_owned(),
        homeserver: matrix.homeserver.to_string(),
        user: matrix.user.clone(),
        password: matrix.password.clone(),
        refused: matrix.password_refused(name).map(|wrong| Fault::new(wrong.what, wrong.mend)),
        state_dir: config.paths.state_dir.clone(),
        unsigned_devices: matrix.unsigned_devices,
        begun: None,
        watchdog: None,
    }
}

/// Returns whom the coding bot hears on an account, and in which rooms.
pub(super) fn policy(people: &config::People) -> Policy {
    let rooms = people.rooms.clone();
    let places = if rooms.is_empty() { Places::Anywhere } else { Places::Listed(rooms) };
    Policy::new(People::Listed(people.allowed.clone()), places)
}

/// Returns the gateway's policy. Fails only for settings that [`review`] has refused.
pub(super) fn gateway(config: &Config) -> Result<GatewayPolicy, BadPattern> {
    let hosts = AllowedHosts::parse(&config.sandbox.allowed_hosts)?;
    let limits = GatewayLimits { ask: config.sandbox.host_ask, ..GatewayLimits::default() };
    Ok(GatewayPolicy { allowed_hosts: hosts, limits })
}

/// Returns the ledger of what models use.
pub(super) fn ledger(config: &Config, store: Store) -> Ledger {
    let limits = DayLimits { room: config.limits.room_tokens, person: config.limits.user_tokens };
    Ledger::new(store, Rules { limits, prices: models::prices(config), admins: config.people.admins.clone() })
}

/// Returns who is who on each account.
pub(super) fn roles(config: &Config) -> Roles {
    let listed = |people: &config::People| Listed { users: people.allowed.clone(), admins: people.admins.clone() };
    let others = config.accounts.iter().map(|account| (account.name.clone(), listed(&account.people)));
    let in_talk = chat_bots::coder_in_talk(config).map(|coder| {
        let listed = Listed { users: chat_bots::at_nextcloud(&coder.users), admins: vec![] };
        (TALK_ACCOUNTS[1].to_owned(), listed)
    });
    let first = (FIRST_ACCOUNT.to_owned(), listed(&config.people));
    let accounts = [first].into_iter().chain(others).chain(in_talk).collect();
    Roles { accounts, local: vec![terminal::ROOMS.prefix] }
}

/// Returns how much a commit waits for the disk.
pub(super) fn durability(config: &Config) -> Durability {
    match config.paths.journal_sync {
        JournalSync::Normal => Durability::Normal,
        JournalSync::Full => Durability::Full,
    }
}

/// Returns the options of the sandboxes.
pub(super) fn sandboxes(config: &Config, instance: &str, clock: Clock) -> SandboxOptions {
    let sandbox = config.sandbox.clone();
    SandboxOptions {
        state_dir: config.paths.state_dir.clone(),
        ipc_dir: config.paths.ipc_base_dir.clone(),
        instance: instance.to_owned(),
        image: sandbox.image,
        podman_socket: sandbox.podman_socket,
        podman_path: sandbox.podman_path,
        runtime: runtime(config),
        memory: sandbox.memory,
        cpus: sandbox.cpus,
        pids: sandbox.pids,
        disk: sandbox.disk,
        idle: sandbox.idle,
        memory_total: memory_total(config),
        max_running: sandbox.max_running,
        host_disk_reserve: config.limits.host_disk_reserve,
        grace: config.limits.room_grace,
        clock,
        ca_bundle: sandbox.ca_bundle,
    }
}

/// Returns what runs the sandboxes' containers; `None`: what Podman's own settings say.
pub(super) fn runtime(config: &Config) -> Option<Runtime> {
    config.sandbox.runtime.map(|runtime| match runtime {
        SandboxRuntime::Runc => Runtime::Runc,
        SandboxRuntime::Crun => Runtime::Crun,
        SandboxRuntime::Runsc => Runtime::Runsc,
    })
}

/// Opens the environments of repositories, unless they are given no disk.
pub(super) fn environments(config: &Config, sandboxes: Sandboxes) -> io::Result<Option<Environments>> {
    let (bound, secrets) = (config.sandbox.environments, config.sandbox.setup_secrets.clone());
    let options = EnvironmentOptions { folder: environments_folder(config), bound, secrets };
    (bound > 0).then(|| Environments::open(sandboxes, options)).transpose()
}

/// Returns where environments of repositories are kept.
pub(super) fn environments_folder(config: &Config) -> PathBuf {
    config.paths.state_dir.join("environments")
}

/// Returns how much memory all sandboxes may use together, in bytes; no bound if the host's memory is unknown.
pub(super) fn memory_total(config: &Config) -> u64 {
    config.sandbox.memory_total.of(memory::of_host().unwrap_or(u64::MAX))
}

/// Returns the limits of a turn.
pub(super) fn turn_limits(config: &Config) -> orchestrator::TurnLimits {
    orchestrator::TurnLimits {
        rounds: config.limits.agent_turns,
        time: config.limits.turn_timeout,
        tools: ToolLimits {
            command: config.limits.command_timeout,
            longest: config.limits.command_longest,
            coding: config.limits.coding_timeout,
            coding_idle: config.limits.coding_idle,
            approval: match config.limits.plan_approval {
                PlanApproval::Off => None,
                PlanApproval::Asker => Some(Answerer::Asker),
                PlanApproval::Second => Some(Answerer::Another),
            },
        },
        ..orchestrator::TurnLimits::default()
    }
}

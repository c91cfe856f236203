//! The environment of a command: calm defaults for a program that nobody watches, the image's own settings, the way to
//! the gateway, and on top what the request says. Pure; called when a command is started.

use std::collections::BTreeMap;

use sandboxd::protocol::User;

use crate::{account, account::Account, proxy};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The defaults that the image or the container's maker may change. `CI` is not among them: it makes builds and
/// installs do something else than they do for people. A program whose output goes to a log is read there while it
/// runs, so Python must not hold it back. Node takes its proxy from the environment only when it is told to.
const DEFAULTS: [(&str, &str); 12] = [
    ("PATH", PATH),
    ("LANG", "C.UTF-8"),
    ("PYTHONUNBUFFERED", "1"),
    ("NODE_USE_ENV_PROXY", "1"),
    ("NO_COLOR", "1"),
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GH_PAGER", "cat"),
    // Where the image says how `gh` reaches the gateway; the agent's own settings would not.
    ("GH_CONFIG_DIR", "/etc/gh"),
    ("MANPAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("PIP_PROGRESS_BAR", "off"),
];

/// Hosts that programs reach without the gateway: those in the sandbox.
const LOCAL: &str = "localhost,127.0.0.1,::1";

/// How GitHub is written in the addresses that git is to send to the gateway.
const GIT_FORMS: [&str; 3] = ["https://github.com/", "git@github.com:", "ssh://git@github.com/"];

/// Returns the environment of a command: `container` is sandboxd's own, `request` the command's.
pub(crate) fn build(
    container: &[(String, String)],
    account: &Account,
    user: User,
    request: &[(String, String)],
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
    for (name, value) in DEFAULTS {
        set(name, value);
    }
    for (name, value) in container {
        set(name, value);
    }
    // Podman sets these for PID 1; they are not a command's.
    set("TERM", "dumb");
    let (name, home, shell) = match user {
        User::Agent => (account::NAME, account.home.as_str(), account.shell.as_str()),
        User::Root => ("root", "/root", "/bin/sh"),
    };
    for (name, value) in [("HOME", home), ("USER", name), ("LOGNAME", name), ("SHELL", shell)] {
        set(name, value);
    }
    let web = format!("http://127.0.0.1:{}", proxy::WEB_PORT);
    for (upper, value) in [("HTTP_PROXY", web.as_str()), ("HTTPS_PROXY", &web), ("NO_PROXY", LOCAL)] {
        set(upper, value);
        set(&upper.to_lowercase(), value);
    }
    set("GIT_CONFIG_COUNT", &GIT_FORMS.len().to_string());
    for (place, form) in GIT_FORMS.iter().enumerate() {
        set(
            &format!("GIT_CONFIG_KEY_{place}"),
            &format!("url.http://127.0.0.1:{}/github.com/.insteadOf", proxy::GIT_PORT),
        );
        set(&format!("GIT_CONFIG_VALUE_{place}"), form);
    }
    if user == User::Root {
        // Root must not run what the agent can write.
        let path: Vec<_> = all["PATH"].split(':').filter(|part| part.starts_with('/')).collect();
        let path: Vec<_> = path.into_iter().filter(|part| !part.starts_with(&account.home)).collect();
        let path = path.join(":");
        all.insert("PATH".to_owned(), path);
    }
    all.extend(request.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { uid: 1000, gid: 1000, groups: vec![1000], home: "/home/agent".into(), shell: "/bin/bash".into() }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_request_wins_over_the_image_and_the_image_over_the_defaults() {
        let container = pairs(&[("LANG", "de_DE.UTF-8"), ("HOME", "/root"), ("TERM", "xterm"), ("NO_COLOR", "0")]);
        let all = build(&container, &account(), User::Agent, &pairs(&[("NO_COLOR", ""), ("X", "y")]));
        for (name, value) in [
            ("LANG", "de_DE.UTF-8"),
            ("HOME", "/home/agent"),
            ("TERM", "dumb"),
            ("NO_COLOR", ""),
            ("PYTHONUNBUFFERED", "1"),
            ("NODE_USE_ENV_PROXY", "1"),
            ("X", "y"),
            ("USER", "agent"),
            ("PATH", PATH),
            ("https_proxy", "http://127.0.0.1:3128"),
            ("HTTPS_PROXY", "http://127.0.0.1:3128"),
            ("no_proxy", LOCAL),
            ("GIT_CONFIG_COUNT", "3"),
            ("GIT_CONFIG_KEY_2", "url.http://127.0.0.1:3129/github.com/.insteadOf"),
            ("GIT_CONFIG_VALUE_0", "https://github.com/"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!all.contains_key("CI"), "a command is no build server");
    }

    #[test]
    fn root_finds_no_program_in_the_agent_s_home() {
        let container = pairs(&[("PATH", "/home/agent/.local/bin:/usr/bin:.:")]);
        let all = build(&container, &account(), User::Root, &[]);
        assert_eq!((all["PATH"].as_str(), all["HOME"].as_str()), ("/usr/bin", "/root"));
    }
}
